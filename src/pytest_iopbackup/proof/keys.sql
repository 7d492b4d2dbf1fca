-- What rows must satisfy together: kind, table, name, definition as a person reads it, a query that counts the rows which
-- do not and gives the place of one, and why there is no such query. Runs with an empty search_path.
--
-- Foreign keys are followed as PostgreSQL follows them when it validates one (ri_triggers.c, RI_Initial_Check): with the
-- operators that the constraint has, on the referenced column's collation. Those of partitions are parts of their
-- parent's. format_type(…, -1) is "bpchar", where "character" would be one character.
-- to_jsonb(row) reads columns that not every supported version has.

WITH fk AS (
    SELECT c.*, format('%s.%I', c.conrelid::regclass, c.conname) AS name, r.relkind, f.relkind AS other_relkind,
           coalesce((to_jsonb(c) ->> 'conperiod')::boolean, false) AS temporal,
           (SELECT string_agg('fk.' || quote_ident(a.attname), ', ' ORDER BY k.place)
            FROM unnest(c.conkey) WITH ORDINALITY AS k(attnum, place)
            JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.attnum) AS columns
    FROM pg_constraint AS c
    JOIN pg_class AS r ON r.oid = c.conrelid
    JOIN pg_class AS f ON f.oid = c.confrelid
    WHERE c.contype = 'f' AND c.conparentid = 0 AND c.convalidated
      AND NOT (r.relpersistence = 'u' AND pg_is_in_recovery())
),
matches AS (
    SELECT fk.oid,
           string_agg(
               format('pk.%I%s%s OPERATOR(%I.%s) fk.%I%s',
                      p.attname,
                      CASE WHEN lt.typtype <> 'p' THEN '::' || format_type(o.oprleft, -1) END,
                      ' COLLATE ' || nullif(p.attcollation, 0)::regcollation,
                      n.nspname, o.oprname, a.attname,
                      CASE WHEN rt.typtype <> 'p' THEN '::' || format_type(o.oprright, -1) END),
               ' AND ' ORDER BY k.place) AS condition
    FROM fk
    CROSS JOIN LATERAL unnest(fk.conkey, fk.confkey, fk.conpfeqop) WITH ORDINALITY AS k(attnum, other, operator, place)
    JOIN pg_attribute AS a ON a.attrelid = fk.conrelid AND a.attnum = k.attnum
    JOIN pg_attribute AS p ON p.attrelid = fk.confrelid AND p.attnum = k.other
    JOIN pg_operator AS o ON o.oid = k.operator
    JOIN pg_namespace AS n ON n.oid = o.oprnamespace
    JOIN pg_type AS lt ON lt.oid = o.oprleft
    JOIN pg_type AS rt ON rt.oid = o.oprright
    GROUP BY fk.oid
),
uniq AS (
    SELECT i.indexrelid, i.indrelid, i.indpred, c.oid AS constraint_oid, c.conname,
           coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS null_is_a_value,
           string_agg(pg_get_indexdef(i.indexrelid, k.place::int, true), ', ' ORDER BY k.place) AS columns,
           string_agg(
               format('(%s)%s', pg_get_indexdef(i.indexrelid, k.place::int, true),
                      ' COLLATE ' || nullif(k.coll, 0)::regcollation), ', ' ORDER BY k.place) AS grouping_columns,
           bool_and(oc.opcdefault OR mine.amopopr = usual.amopopr) AS usual_equality
    FROM pg_index AS i
    JOIN pg_class AS x ON x.oid = i.indexrelid
    JOIN pg_am AS m ON m.oid = x.relam AND m.amname = 'btree'
    LEFT JOIN pg_constraint AS c ON c.conindid = i.indexrelid AND c.contype IN ('p', 'u') AND c.conrelid = i.indrelid
    CROSS JOIN LATERAL unnest(i.indclass::oid[], i.indcollation::oid[]) WITH ORDINALITY AS k(class, coll, place)
    JOIN pg_opclass AS oc ON oc.oid = k.class
    LEFT JOIN pg_amop AS mine
        ON mine.amopfamily = oc.opcfamily AND mine.amopstrategy = 3
       AND mine.amoplefttype = oc.opcintype AND mine.amoprighttype = oc.opcintype
    LEFT JOIN pg_opclass AS default_class
        ON default_class.opcmethod = oc.opcmethod AND default_class.opcintype = oc.opcintype AND default_class.opcdefault
    LEFT JOIN pg_amop AS usual
        ON usual.amopfamily = default_class.opcfamily AND usual.amopstrategy = 3
       AND usual.amoplefttype = oc.opcintype AND usual.amoprighttype = oc.opcintype
    WHERE i.indrelid >= 16384 AND i.indisunique AND i.indisvalid AND i.indisready AND x.relkind = 'i'
      AND x.relpersistence <> 't' AND x.relnamespace <> 'pg_toast'::regnamespace
      AND NOT (x.relpersistence = 'u' AND pg_is_in_recovery())
    GROUP BY i.indexrelid, c.oid
)

SELECT 'constraint' AS kind, fk.conrelid::regclass::text AS relation, fk.name, pg_get_constraintdef(fk.oid) AS definition,
       CASE WHEN NOT fk.temporal THEN
           format('SELECT count(*), min(fk.tableoid::regclass || '' '' || fk.ctid::text) FROM %s%s AS fk '
                  'WHERE %s AND NOT EXISTS (SELECT FROM %s%s AS pk WHERE %s)',
                  CASE WHEN fk.relkind = 'r' THEN 'ONLY ' END, fk.conrelid::regclass,
                  CASE fk.confmatchtype WHEN 'f' THEN format('num_nonnulls(%s) > 0', fk.columns)
                                        ELSE format('num_nulls(%s) = 0', fk.columns) END,
                  CASE WHEN fk.other_relkind = 'r' THEN 'ONLY ' END, fk.confrelid::regclass,
                  matches.condition)
       END AS query,
       CASE WHEN fk.temporal THEN 'temporal foreign keys are not followed' END AS why
FROM fk JOIN matches USING (oid)

UNION ALL
SELECT CASE WHEN uniq.conname IS NULL THEN 'index' ELSE 'constraint' END, uniq.indrelid::regclass::text,
       coalesce(uniq.indrelid::regclass || '.' || quote_ident(uniq.conname), uniq.indexrelid::regclass::text),
       coalesce(pg_get_constraintdef(uniq.constraint_oid), format('UNIQUE (%s)', uniq.columns)),
       CASE WHEN uniq.usual_equality THEN
           format('SELECT coalesce(sum(n), 0)::bigint, min(place) FROM ('
                  'SELECT count(*) - 1 AS n, min(ctid::text) AS place FROM ONLY %s WHERE %s AND %s '
                  'GROUP BY %s HAVING count(*) > 1) AS twice',
                  uniq.indrelid::regclass,
                  coalesce('(' || pg_get_expr(uniq.indpred, uniq.indrelid) || ')', 'true'),
                  CASE WHEN uniq.null_is_a_value THEN 'true' ELSE format('num_nulls(%s) = 0', uniq.columns) END,
                  uniq.grouping_columns)
       END,
       CASE WHEN NOT uniq.usual_equality THEN 'its operator class compares in a way of its own' END
FROM uniq

UNION ALL
-- Of overlaps: what forbids them is an index, so whoever asks has to build one.
SELECT 'exclusion', c.conrelid::regclass::text, format('%s.%I', c.conrelid::regclass, c.conname),
       pg_get_constraintdef(c.oid), NULL,
       CASE WHEN pg_is_in_recovery() THEN 'only an index can tell, and a server in recovery can build none' END
FROM pg_constraint AS c JOIN pg_class AS r ON r.oid = c.conrelid
WHERE (c.contype = 'x' OR c.contype IN ('p', 'u') AND (to_jsonb(c) ->> 'conperiod')::boolean)
  AND r.relkind = 'r' AND r.oid >= 16384
ORDER BY 1, 2, 3
