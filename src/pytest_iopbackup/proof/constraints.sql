-- What every row of a table must satisfy by itself: table, name, definition as a person reads it, the predicate that is
-- true of a row which does not (NULL where nothing was promised), and what the word VALUE in that stands for. Runs with an
-- empty search_path, so names come out qualified; in a predicate a column stands by itself, for the table is the only one
-- in its query.
--
-- num_nulls() sees what IS NULL does not: PostgreSQL 17 takes "IS NULL" of a NOT NULL column for false without a look,
-- and a composite value whose fields are all null is not null itself.

WITH RECURSIVE rel AS (
    SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_toast'
      AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery())
),
col AS (
    SELECT rel.name AS relation, format('%s.%I', rel.name, a.attname) AS name, quote_ident(a.attname) AS quoted, a.*
    FROM rel JOIN pg_attribute AS a ON a.attrelid = rel.oid
    WHERE a.attnum > 0 AND NOT a.attisdropped
),
-- A domain may be over another one: each level has constraints of its own.
dom (relation, name, quoted, type) AS (
    SELECT col.relation, col.name, col.quoted, col.atttypid FROM col
    UNION ALL
    SELECT dom.relation, dom.name, dom.quoted, t.typbasetype
    FROM dom JOIN pg_type AS t ON t.oid = dom.type WHERE t.typtype = 'd'
)

SELECT col.relation, col.name, 'NOT NULL', format('num_nulls(%s) > 0', col.quoted) AS predicate,
       NULL AS value
FROM col
WHERE col.attnotnull AND NOT EXISTS (
    SELECT FROM pg_constraint AS c
    WHERE c.conrelid = col.attrelid AND c.contype = 'n' AND c.conkey = ARRAY[col.attnum] AND NOT c.convalidated)

UNION ALL
SELECT rel.name, format('%s.%I', rel.name, c.conname), pg_get_constraintdef(c.oid),
       format('NOT (%s)', pg_get_expr(c.conbin, c.conrelid)), NULL
FROM pg_constraint AS c JOIN rel ON rel.oid = c.conrelid
WHERE c.contype = 'c' AND c.convalidated

UNION ALL
SELECT rel.name, rel.name, 'rows of its partition alone',
       format('NOT (%s)', pg_get_partition_constraintdef(rel.oid)), NULL
FROM rel WHERE pg_get_partition_constraintdef(rel.oid) IS NOT NULL

UNION ALL
SELECT dom.relation, format('%s of domain %s', dom.name, format_type(dom.type, NULL)), 'NOT NULL',
       format('num_nulls(%s) > 0', dom.quoted), NULL
FROM dom JOIN pg_type AS t ON t.oid = dom.type
WHERE t.typtype = 'd' AND t.typnotnull

UNION ALL
SELECT dom.relation, format('%s of domain %s', dom.name, format_type(dom.type, NULL)), pg_get_constraintdef(c.oid),
       format('NOT (%s)', pg_get_expr(c.conbin, 0)),
       format('(%s)::%s', dom.quoted, format_type(t.typbasetype, t.typtypmod))
FROM dom JOIN pg_type AS t ON t.oid = dom.type JOIN pg_constraint AS c ON c.contypid = t.oid
WHERE c.contype = 'c' AND c.convalidated

UNION ALL
SELECT coalesce(rel.name, r.oid::regclass::text), format('%s.%I', coalesce(rel.name, r.oid::regclass::text), c.conname),
       pg_get_constraintdef(c.oid), NULL, NULL
FROM pg_constraint AS c JOIN pg_class AS r ON r.oid = c.conrelid LEFT JOIN rel ON rel.oid = c.conrelid
WHERE NOT c.convalidated AND r.oid >= 16384

UNION ALL
SELECT NULL, format('domain %s.%I', format_type(c.contypid, NULL), c.conname), pg_get_constraintdef(c.oid), NULL, NULL
FROM pg_constraint AS c WHERE NOT c.convalidated AND c.contypid <> 0
ORDER BY 1, 2, 3
