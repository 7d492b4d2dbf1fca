-- Every relation with rows of its own: name, columns, primary key, why its rows are not compared.
-- A column is its name, the type to cast to where the binary form would lose something, and how to hash it: the type
-- under all domains, whether there are domains, pg_type.typtype, and a send function that takes the type as it is.
-- Runs with an empty search_path. 16384 is the first OID that initdb does not use.

WITH RECURSIVE rel AS (
    SELECT c.oid, c.relkind, c.relpersistence, c.relispopulated, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm', 'f') AND c.relpersistence <> 't' AND n.nspname <> 'pg_toast'
      -- large objects are rows of two system tables
      AND (c.oid >= 16384 OR c.oid IN ('pg_catalog.pg_largeobject'::pg_catalog.regclass,
                                       'pg_catalog.pg_largeobject_metadata'::pg_catalog.regclass))
),
col AS (
    SELECT a.attrelid, a.attnum, a.attname, a.atttypid
    FROM pg_catalog.pg_attribute AS a JOIN rel ON rel.oid = a.attrelid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v' -- a virtual column is computed, not stored
),
parts (type, part) AS (
    SELECT DISTINCT atttypid, atttypid FROM col
  UNION
    SELECT parts.type, inner_type.oid
    FROM parts
    JOIN pg_catalog.pg_type AS t ON t.oid = parts.part
    CROSS JOIN LATERAL (
        SELECT t.typbasetype AS oid
        UNION ALL SELECT t.typelem
        UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute AS a
                  WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range AS r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
    ) AS inner_type
    WHERE inner_type.oid <> 0
),
lossy (type) AS (
    SELECT DISTINCT parts.type
    FROM parts JOIN pg_catalog.pg_type AS t ON t.oid = parts.part
    WHERE t.typsend = 0 OR t.oid = 'pg_catalog.xml'::pg_catalog.regtype
),
base (type, base) AS (
    SELECT DISTINCT atttypid, atttypid FROM col
  UNION
    SELECT base.type, t.typbasetype
    FROM base JOIN pg_catalog.pg_type AS t ON t.oid = base.base AND t.typtype = 'd'
),
hashing (type, how) AS (
    SELECT base.type, pg_catalog.jsonb_build_array(
        CASE WHEN base.type NOT IN (SELECT lossy.type FROM lossy) THEN NULL
             WHEN base.base = 'pg_catalog.xml[]'::pg_catalog.regtype THEN 'text[]'
             ELSE 'text' END,
        pg_catalog.format('%I.%I', n.nspname, t.typname), base.type <> base.base, t.typtype,
        (SELECT pg_catalog.format('%I.%I', p.pronamespace::pg_catalog.regnamespace::pg_catalog.name, p.proname)
         FROM pg_catalog.pg_proc AS p
         WHERE p.oid = t.typsend
           AND (p.proargtypes[0] = t.oid OR p.proname IN ('array_send', 'range_send', 'multirange_send', 'record_send')
                                            AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace)))
    FROM base
    JOIN pg_catalog.pg_type AS t ON t.oid = base.base AND t.typtype <> 'd'
    JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
)
SELECT rel.name,
       (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(col.attname) || hashing.how ORDER BY col.attnum)
        FROM col JOIN hashing ON hashing.type = col.atttypid
        WHERE col.attrelid = rel.oid),
       (SELECT pg_catalog.jsonb_agg(col.attname ORDER BY k.place)
        FROM pg_catalog.pg_index AS i
        CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(attnum, place)
        JOIN col ON col.attrelid = rel.oid AND col.attnum = k.attnum
        WHERE i.indrelid = rel.oid AND i.indisprimary AND k.place <= i.indnkeyatts),
       CASE WHEN rel.relpersistence = 'u' THEN 'unlogged: recovery empties it'
            WHEN rel.relkind = 'f' THEN 'foreign: its rows are elsewhere'
            WHEN NOT rel.relispopulated THEN 'materialized view without data' END
FROM rel
ORDER BY 1
