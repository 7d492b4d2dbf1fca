-- Keys, indexes, view, function, role and grants. They follow the rows: building an index once is faster than growing it.
-- No foreign key cascades: a statement changes the rows it names and no others, so the ledger's effects are exact.

ALTER TABLE identity.users
    ADD PRIMARY KEY (id),
    ADD UNIQUE (number),
    ADD UNIQUE (email),
    ADD CHECK (email COLLATE "C" LIKE '_%@_%'),
    ADD CHECK (quota >= 0);
ALTER TABLE identity.users
    ADD FOREIGN KEY (manager_id) REFERENCES identity.users DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX ON identity.users (status) WHERE status <> 'active';

ALTER TABLE identity.groups ADD PRIMARY KEY (id), ADD UNIQUE (slug), ADD CHECK (budget >= 0), ADD CHECK (parent_id <> id);
ALTER TABLE identity.groups ADD FOREIGN KEY (parent_id) REFERENCES identity.groups;
CREATE INDEX ON identity.groups USING gin (tags);

ALTER TABLE identity.membership
    ADD PRIMARY KEY (id),
    ADD UNIQUE (user_id, group_id),
    ADD FOREIGN KEY (user_id) REFERENCES identity.users,
    ADD FOREIGN KEY (group_id) REFERENCES identity.groups,
    ADD CHECK (expires_at > granted_at);

ALTER TABLE identity.credentials
    ADD PRIMARY KEY (id),
    ADD UNIQUE (user_id, kind),
    ADD FOREIGN KEY (user_id) REFERENCES identity.users,
    ADD CHECK (octet_length(salt) = 16);

ALTER TABLE identity.sessions
    ADD PRIMARY KEY (id),
    ADD UNIQUE (token_hash),
    ADD FOREIGN KEY (user_id) REFERENCES identity.users,
    ADD CHECK (octet_length(token_hash) = 32),
    ADD CHECK (risk BETWEEN 0 AND 1),
    ADD CHECK (expires_at > started_at);
CREATE INDEX ON identity.sessions (user_id);

ALTER TABLE identity.audit_log ADD PRIMARY KEY (occurred_at, id);
CREATE INDEX ON identity.audit_log (request_id);

ALTER TABLE identity.settings ADD PRIMARY KEY (key), ADD CHECK (key ~ '^[a-z]+(\.[a-z0-9_]+)+$');

CREATE INDEX ON identity.login_attempts (occurred_at);

ALTER TABLE identity.documents
    ADD PRIMARY KEY (id),
    ADD UNIQUE (content),
    ADD FOREIGN KEY (user_id) REFERENCES identity.users,
    ADD CHECK (octet_length(content_sha256) = 32);

CREATE VIEW identity.active_members AS
SELECT g.id AS group_id, g.slug, u.id AS user_id, u.display_name, m.role
FROM identity.membership AS m
    JOIN identity.groups AS g ON g.id = m.group_id
    JOIN identity.users AS u ON u.id = m.user_id
WHERE u.status = 'active';

CREATE FUNCTION identity.has_role(member uuid, group_slug text, at_least identity.member_role) RETURNS boolean
LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT EXISTS (
        SELECT FROM identity.active_members AS a WHERE a.user_id = member AND a.slug = group_slug AND a.role >= at_least
    );
END;

-- Roles belong to the cluster, not to the database: another database may have made it already.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'iop_app') THEN
        CREATE ROLE iop_app NOLOGIN;
    END IF;
END
$$;

REVOKE EXECUTE ON FUNCTION identity.has_role FROM PUBLIC;
GRANT USAGE ON SCHEMA identity TO iop_app;
GRANT SELECT, INSERT, UPDATE, DELETE
    ON identity.users, identity.groups, identity.membership, identity.credentials, identity.sessions, identity.settings
    TO iop_app;
GRANT SELECT, INSERT ON identity.audit_log, identity.login_attempts TO iop_app;
GRANT SELECT ON identity.documents, identity.active_members TO iop_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA identity TO iop_app;
GRANT EXECUTE ON FUNCTION identity.has_role TO iop_app;
DO $$
DECLARE
    document oid;
BEGIN
    FOR document IN SELECT content FROM identity.documents LOOP
        EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO iop_app', document);
    END LOOP;
END
$$;

-- COPY brings its own numbers.
SELECT setval(pg_get_serial_sequence('identity.users', 'number'), max(number)) FROM identity.users;
SELECT setval(pg_get_serial_sequence('identity.groups', 'id'), max(id)) FROM identity.groups;
SELECT setval(pg_get_serial_sequence('identity.documents', 'id'), max(id)) FROM identity.documents;
SELECT setval('identity.audit_log_id_seq', max(id)) FROM identity.audit_log;
