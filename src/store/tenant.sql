-- Tenants, and the activation that tells a database from its copy.

CREATE TABLE contactsync.tenants (
	tenant_id  text COLLATE "C" PRIMARY KEY CHECK (tenant_id <> '' AND tenant_id <> '*'),
	role_name  name,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE contactsync.tenants IS 'Customers kept apart in this database; kept by add_tenant() and drop_tenant().';
COMMENT ON COLUMN contactsync.tenants.role_name IS 'Role whose members may act for the tenant; NULL = every member of a contactsync role.';

-- 'default' is made by the install script, and so is not dumped.
INSERT INTO contactsync.tenants (tenant_id) VALUES ('default');
SELECT pg_catalog.pg_extension_config_dump('contactsync.tenants', $$WHERE tenant_id <> 'default'$$);

CREATE FUNCTION contactsync.current_tenant() RETURNS text
	LANGUAGE C STABLE PARALLEL RESTRICTED STRICT
	AS 'MODULE_PATHNAME', 'guard_current_tenant_sql';
COMMENT ON FUNCTION contactsync.current_tenant() IS
	'The active tenant: setting contactsync.tenant if current_user may act for it. Errors: 42501 if it may not, 22023 if there is no such tenant.';

CREATE FUNCTION contactsync._caller() RETURNS name
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'guard_caller_sql';
CREATE FUNCTION contactsync._pin(tenant text) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'guard_pin_sql';
CREATE FUNCTION contactsync._lock_tenant() RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_lock_tenant_sql';
CREATE FUNCTION contactsync._require_active() RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_require_active_sql';

-- One row for each tenant that has state: see guard_lock_tenant.
CREATE TABLE contactsync.tenant_state (
	tenant_id  text COLLATE "C" PRIMARY KEY DEFAULT contactsync.current_tenant(),
	generation bigint NOT NULL DEFAULT 1
) WITH (fillfactor = 50);
COMMENT ON TABLE contactsync.tenant_state IS 'Counts the changes of each tenant''s state.';
SELECT pg_catalog.pg_extension_config_dump('contactsync.tenant_state', '');

-- Never dumped and never written by this script: data without a matching row
-- is a copy of another database.
CREATE TABLE contactsync.activation (
	system_identifier bigint NOT NULL,
	database_oid      oid NOT NULL,
	activated_at      timestamptz NOT NULL DEFAULT pg_catalog.now(),
	activated_by      name NOT NULL DEFAULT contactsync._caller(),
	PRIMARY KEY (system_identifier, database_oid)
);
COMMENT ON TABLE contactsync.activation IS 'The database that this data belongs to; see activate().';
