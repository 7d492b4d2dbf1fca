-- Every object of this database and of the cluster around it that initdb did not make: kind, name, definition.
-- 16384 is the first OID that initdb does not use. Runs with an empty search_path, so names come out qualified.
-- to_jsonb(row) reads columns that not every supported version has.

WITH rel AS (
    SELECT c.*, format('%I.%I', n.nspname, c.relname) AS name, pg_get_userbyid(c.relowner) AS owner,
           (SELECT s.spcname FROM pg_tablespace AS s WHERE s.oid = c.reltablespace) AS tablespace
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND c.relpersistence <> 't' AND n.nspname !~ '^pg_(toast|temp_)'
),
acl (class, object, sub, kind, name, items) AS (
    SELECT 'pg_class'::regclass, c.oid, 0, 'relation', c.oid::regclass::text, c.relacl
    FROM pg_class AS c
    WHERE c.relacl IS NOT NULL AND c.relpersistence <> 't' AND c.relnamespace <> 'information_schema'::regnamespace
    UNION ALL
    SELECT 'pg_class'::regclass, a.attrelid, a.attnum, 'column', format('%s.%I', a.attrelid::regclass, a.attname),
           a.attacl
    FROM pg_attribute AS a WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, 0, 'function', p.oid::regprocedure::text, p.proacl FROM pg_proc AS p
    WHERE p.proacl IS NOT NULL -- before 3,000 names are made
    UNION ALL
    SELECT 'pg_namespace'::regclass, n.oid, 0, 'schema', quote_ident(n.nspname), n.nspacl FROM pg_namespace AS n
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid, 0, 'type', format_type(t.oid, NULL), t.typacl FROM pg_type AS t
    WHERE t.typacl IS NOT NULL
    UNION ALL
    SELECT 'pg_language'::regclass, l.oid, 0, 'language', quote_ident(l.lanname), l.lanacl FROM pg_language AS l
    UNION ALL
    SELECT 'pg_foreign_data_wrapper'::regclass, w.oid, 0, 'foreign-data wrapper', quote_ident(w.fdwname), w.fdwacl
    FROM pg_foreign_data_wrapper AS w
    UNION ALL
    SELECT 'pg_foreign_server'::regclass, s.oid, 0, 'server', quote_ident(s.srvname), s.srvacl
    FROM pg_foreign_server AS s
    UNION ALL
    SELECT 'pg_database'::regclass, d.oid, 0, 'database', quote_ident(d.datname), d.datacl FROM pg_database AS d
    UNION ALL
    SELECT 'pg_tablespace'::regclass, s.oid, 0, 'tablespace', quote_ident(s.spcname), s.spcacl FROM pg_tablespace AS s
)

SELECT 'schema' AS kind, quote_ident(n.nspname) AS name, 'owner ' || pg_get_userbyid(n.nspowner) AS definition
FROM pg_namespace AS n WHERE n.nspname !~ '^pg_(toast|temp_)'

UNION ALL
SELECT CASE rel.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                        ELSE 'table' END,
       rel.name,
       concat_ws(', ',
           'owner ' || rel.owner,
           CASE rel.relpersistence WHEN 'u' THEN 'unlogged' END,
           'partitioned by ' || pg_get_partkeydef(rel.oid),
           (SELECT 'inherits ' || string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno)
            FROM pg_inherits AS i WHERE i.inhrelid = rel.oid),
           pg_get_expr(rel.relpartbound, rel.oid),
           'of ' || nullif(rel.reloftype, 0)::regtype,
           (SELECT 'access method ' || am.amname FROM pg_am AS am WHERE am.oid = rel.relam),
           'tablespace ' || rel.tablespace,
           'options ' || rel.reloptions::text,
           CASE WHEN rel.relrowsecurity THEN 'row security' END,
           CASE WHEN rel.relforcerowsecurity THEN 'row security forced' END,
           CASE WHEN rel.relreplident = 'i' THEN 'replica identity index'
                WHEN rel.relreplident = 'f' THEN 'replica identity full'
                WHEN rel.relreplident = 'n' AND rel.relkind IN ('r', 'p') THEN 'replica identity nothing' END,
           CASE WHEN NOT rel.relispopulated THEN 'without data' END,
           (SELECT format('server %I, options %s', s.srvname, f.ftoptions)
            FROM pg_foreign_table AS f JOIN pg_foreign_server AS s ON s.oid = f.ftserver WHERE f.ftrelid = rel.oid),
           CASE WHEN rel.relkind IN ('v', 'm') THEN 'as' || pg_get_viewdef(rel.oid) END)
FROM rel WHERE rel.relkind IN ('r', 'p', 'v', 'm', 'f')

UNION ALL
SELECT 'column', format('%s.%I', rel.name, a.attname),
       concat_ws(' ',
           format_type(a.atttypid, a.atttypmod),
           (SELECT 'collate ' || a.attcollation::regcollation WHERE a.attcollation <> t.typcollation),
           CASE WHEN a.attnotnull THEN 'not null' END,
           CASE a.attidentity WHEN 'a' THEN 'identity always' WHEN 'd' THEN 'identity by default' END,
           CASE a.attgenerated WHEN 's' THEN 'generated stored' WHEN 'v' THEN 'generated virtual' END,
           'default ' || pg_get_expr(d.adbin, d.adrelid),
           'storage ' || nullif(a.attstorage, t.typstorage)::text,
           'compression ' || nullif(a.attcompression::text, ''),
           'statistics ' || nullif(a.attstattarget, -1),
           -- pg_attver, of later minor releases (seen in 15.20), is the server's own count of changes
           'options ' || nullif(ARRAY(SELECT o FROM unnest(a.attoptions) AS o WHERE o NOT LIKE 'pg\_attver=%')::text, '{}'),
           'foreign options ' || a.attfdwoptions::text)
FROM pg_attribute AS a
JOIN rel ON rel.oid = a.attrelid
JOIN pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND rel.relkind IN ('r', 'p', 'f', 'c')

UNION ALL
SELECT 'constraint',
       format('%s.%I', coalesce(nullif(c.conrelid, 0)::regclass::text, format_type(c.contypid, NULL)), c.conname),
       pg_get_constraintdef(c.oid)
FROM pg_constraint AS c
WHERE c.oid >= 16384 AND (c.conrelid IN (SELECT rel.oid FROM rel) OR c.contypid <> 0)

UNION ALL
SELECT 'index', rel.name,
       concat_ws(', ',
           pg_get_indexdef(i.indexrelid),
           'tablespace ' || rel.tablespace,
           (SELECT 'partition of ' || h.inhparent::regclass FROM pg_inherits AS h WHERE h.inhrelid = rel.oid),
           CASE WHEN NOT i.indisvalid THEN 'invalid' END,
           CASE WHEN NOT i.indisready THEN 'not ready' END,
           CASE WHEN i.indisclustered THEN 'clustered' END,
           CASE WHEN i.indisreplident THEN 'replica identity' END)
FROM pg_index AS i JOIN rel ON rel.oid = i.indexrelid

UNION ALL
SELECT 'sequence', rel.name,
       concat_ws(' ',
           format_type(s.seqtypid, NULL), 'start', s.seqstart, 'increment', s.seqincrement,
           'from', s.seqmin, 'to', s.seqmax, 'cache', s.seqcache, CASE WHEN s.seqcycle THEN 'cycle' END,
           CASE rel.relpersistence WHEN 'u' THEN 'unlogged' END,
           'owner ' || rel.owner,
           (SELECT format('owned by %s.%I', d.refobjid::regclass, a.attname)
            FROM pg_depend AS d JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE d.classid = 'pg_class'::regclass AND d.objid = rel.oid AND d.deptype IN ('a', 'i')))
FROM pg_sequence AS s JOIN rel ON rel.oid = s.seqrelid

UNION ALL
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
       p.oid::regprocedure::text,
       concat_ws(', ',
           'owner ' || pg_get_userbyid(p.proowner),
           CASE WHEN p.prokind = 'a'
                THEN (SELECT (to_jsonb(g) - 'aggfnoid')::text FROM pg_aggregate AS g WHERE g.aggfnoid = p.oid)
                ELSE pg_get_functiondef(p.oid) END)
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE p.oid >= 16384 AND n.nspname !~ '^pg_temp_'

UNION ALL
-- Triggers behind foreign keys are told by their constraint, unless somebody switched them off.
SELECT 'trigger', format('%s.%I', rel.name, t.tgname),
       concat_ws(', ', pg_get_triggerdef(t.oid), 'enabled ' || t.tgenabled::text)
FROM pg_trigger AS t JOIN rel ON rel.oid = t.tgrelid
WHERE NOT t.tgisinternal OR t.tgenabled <> 'O'

UNION ALL
SELECT 'rule', format('%s.%I', rel.name, r.rulename),
       concat_ws(', ', pg_get_ruledef(r.oid), 'enabled ' || r.ev_enabled::text)
FROM pg_rewrite AS r JOIN rel ON rel.oid = r.ev_class
WHERE r.rulename <> '_RETURN'

UNION ALL
SELECT 'policy', format('%s.%I', rel.name, p.polname),
       concat_ws(', ',
           CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END,
           'for ' || p.polcmd::text,
           'to ' || p.polroles::regrole[]::text,
           'using ' || pg_get_expr(p.polqual, p.polrelid),
           'with check ' || pg_get_expr(p.polwithcheck, p.polrelid))
FROM pg_policy AS p JOIN rel ON rel.oid = p.polrelid

UNION ALL
SELECT CASE t.typtype WHEN 'd' THEN 'domain' WHEN 'e' THEN 'enum' ELSE 'type' END, format_type(t.oid, NULL),
       concat_ws(', ',
           'owner ' || pg_get_userbyid(t.typowner),
           (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
            FROM pg_enum AS e WHERE e.enumtypid = t.oid),
           CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END,
           CASE WHEN t.typnotnull THEN 'not null' END,
           'default ' || t.typdefault,
           'collate ' || nullif(t.typcollation, 0)::regcollation,
           (SELECT 'range over ' || (to_jsonb(r) - 'rngtypid')::text FROM pg_range AS r WHERE r.rngtypid = t.oid),
           CASE WHEN t.typtype = 'b'
                THEN format('input %s, output %s, receive %s, send %s, length %s, alignment %s, storage %s',
                            t.typinput, t.typoutput, t.typreceive, t.typsend, t.typlen, t.typalign, t.typstorage) END)
FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
WHERE t.oid >= 16384 AND n.nspname !~ '^pg_(toast|temp_)' AND t.typtype <> 'm'
  AND (t.typrelid = 0 OR t.typrelid IN (SELECT rel.oid FROM rel WHERE rel.relkind = 'c'))
  AND NOT EXISTS (SELECT FROM pg_type AS element WHERE element.typarray = t.oid)

UNION ALL
SELECT 'text search mapping', m.mapcfg::regconfig::text,
       string_agg(format('%s: %s', m.maptokentype, m.mapdict::regdictionary), ', ' ORDER BY m.maptokentype, m.mapseqno)
FROM pg_ts_config_map AS m WHERE m.mapcfg >= 16384 GROUP BY m.mapcfg

UNION ALL
SELECT 'extension', quote_ident(e.extname),
       format('version %s in schema %s, owner %s',
              e.extversion, e.extnamespace::regnamespace, pg_get_userbyid(e.extowner))
FROM pg_extension AS e

UNION ALL
-- The password counts, but only a piece of its digest is kept.
SELECT 'role', quote_ident(r.rolname),
       concat_ws(' ',
           CASE WHEN r.rolsuper THEN 'superuser' END, CASE WHEN r.rolinherit THEN 'inherit' END,
           CASE WHEN r.rolcreaterole THEN 'createrole' END, CASE WHEN r.rolcreatedb THEN 'createdb' END,
           CASE WHEN r.rolcanlogin THEN 'login' ELSE 'nologin' END, CASE WHEN r.rolreplication THEN 'replication' END,
           CASE WHEN r.rolbypassrls THEN 'bypassrls' END, 'limit ' || nullif(r.rolconnlimit, -1),
           'valid until ' || r.rolvaliduntil,
           'password ' || left(encode(sha256(convert_to(r.rolpassword, 'UTF8')), 'hex'), 8))
FROM pg_authid AS r WHERE r.oid >= 16384 OR r.oid = 10

UNION ALL
SELECT 'membership', format('%s in %s, by %s', m.member::regrole, m.roleid::regrole, m.grantor::regrole),
       (to_jsonb(m) - '{oid,roleid,member,grantor}'::text[])::text
FROM pg_auth_members AS m WHERE m.roleid >= 16384 OR m.member >= 16384

UNION ALL
SELECT 'settings',
       concat_ws(' ', 'role ' || nullif(s.setrole, 0)::regrole,
                 'database ' || (SELECT quote_ident(d.datname) FROM pg_database AS d WHERE d.oid = s.setdatabase)),
       s.setconfig::text
FROM pg_db_role_setting AS s

UNION ALL
SELECT 'grant',
       format('on %s %s to %s', acl.kind, acl.name, coalesce(nullif(g.grantee, 0)::regrole::text, 'public')),
       string_agg(
           format('%s%s by %s', g.privilege_type, CASE WHEN g.is_grantable THEN ' with grant option' END,
                  g.grantor::regrole),
           ', ' ORDER BY g.privilege_type, g.grantor::regrole::text)
FROM acl
LEFT JOIN pg_init_privs AS i ON i.classoid = acl.class AND i.objoid = acl.object AND i.objsubid = acl.sub
CROSS JOIN LATERAL aclexplode(acl.items) AS g
WHERE acl.items IS DISTINCT FROM i.initprivs
GROUP BY acl.kind, acl.name, g.grantee

UNION ALL
-- Comments on what initdb made cannot be told from its own; those on schemas are told nevertheless, for public's.
SELECT 'comment', format('on %s %s', o.type, o.identity), c.description
FROM pg_description AS c, pg_identify_object(c.classoid, c.objoid, c.objsubid) AS o
WHERE (c.objoid >= 16384 OR c.classoid = 'pg_namespace'::regclass) AND o.identity IS NOT NULL
UNION ALL
SELECT 'comment', format('on %s %s', o.type, o.identity), c.description
FROM pg_shdescription AS c, pg_identify_object(c.classoid, c.objoid, 0) AS o

UNION ALL
SELECT 'security label', format('%s on %s %s', l.provider, l.objtype, l.objname), l.label FROM pg_seclabels AS l

UNION ALL
SELECT 'database', quote_ident(d.datname),
       concat_ws(', ', 'owner ' || pg_get_userbyid(d.datdba),
           -- without what changes by itself, or is told elsewhere
           (to_jsonb(d) - '{oid,datname,datdba,datfrozenxid,datminmxid,datlastsysoid}'::text[]
                        - '{dattablespace,datacl,dathasloginevt}'::text[])::text,
           (SELECT 'tablespace ' || s.spcname FROM pg_tablespace AS s WHERE s.oid = d.dattablespace))
FROM pg_database AS d

UNION ALL
-- A restore may map a tablespace to another place: its location is not compared.
SELECT 'tablespace', quote_ident(s.spcname),
       concat_ws(', ', 'owner ' || pg_get_userbyid(s.spcowner), 'options ' || s.spcoptions::text)
FROM pg_tablespace AS s

UNION ALL
-- Of the collations in use, what this machine's libraries have: text sorted by another version breaks indexes.
SELECT 'collation version', c.oid::regcollation::text, pg_collation_actual_version(c.oid)
FROM pg_collation AS c
WHERE c.oid IN (SELECT a.attcollation FROM pg_attribute AS a WHERE a.attrelid >= 16384)
  AND pg_collation_actual_version(c.oid) IS NOT NULL
