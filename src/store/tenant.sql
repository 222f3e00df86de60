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

-- ---- keeping tenants ----

CREATE FUNCTION contactsync._add_tenant(tenant text, role name) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	known contactsync.tenants;
BEGIN
	IF tenant IS NULL OR tenant IN ('', '*') THEN
		RAISE EXCEPTION 'a tenant needs a name' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Give it a name of your own; "*" is reserved.';
	END IF;
	IF role IS NULL AND tenant <> 'default' THEN
		RAISE EXCEPTION 'tenant "%" needs a role', tenant USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Members of that role may act for the tenant: CREATE ROLE first, and name it.';
	END IF;
	IF role IS NOT NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = role) THEN
		RAISE EXCEPTION 'role "%" does not exist', role USING ERRCODE = 'undefined_object';
	END IF;
	INSERT INTO contactsync.tenants (tenant_id, role_name) VALUES (tenant, role)
	ON CONFLICT ON CONSTRAINT tenants_pkey DO NOTHING;
	SELECT t.* INTO STRICT known FROM contactsync.tenants t WHERE t.tenant_id = tenant;
	IF known.role_name IS DISTINCT FROM role THEN
		RAISE EXCEPTION 'tenant "%" exists with another role', tenant USING ERRCODE = 'duplicate_object';
	END IF;
END
$$;
CREATE FUNCTION contactsync.add_tenant(tenant text, role name DEFAULT NULL) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.add_tenant(text, name) IS
	'Make a tenant known, for whom members of a role may act; the same call again does nothing. For superusers and members of contactsync_owner. Errors: 22023, 42704 no such role, 42710 the tenant has another role.';

CREATE FUNCTION contactsync._drop_tenant(tenant text, purge boolean) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	t pg_catalog.regclass;
	found_rows boolean;
BEGIN
	IF tenant IS NULL OR tenant = 'default' OR NOT EXISTS (SELECT FROM contactsync.tenants x WHERE x.tenant_id = tenant) THEN
		RAISE EXCEPTION 'tenant "%" cannot be dropped', tenant USING ERRCODE = 'invalid_parameter_value',
			HINT = 'It must exist; "default" is always there.';
	END IF;
	PERFORM contactsync._pin(tenant);
	PERFORM contactsync._lock_tenant();
	FOR t IN
		SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
		WHERE c.relnamespace = 'contactsync'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
			AND c.oid NOT IN ('contactsync.tenants'::pg_catalog.regclass, 'contactsync.tenant_state'::pg_catalog.regclass)
		ORDER BY c.relname
	LOOP
		IF purge THEN
			EXECUTE pg_catalog.format('DELETE FROM %s WHERE tenant_id = $1', t) USING tenant;
			CONTINUE;
		END IF;
		EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM %s WHERE tenant_id = $1)', t) INTO found_rows USING tenant;
		IF found_rows THEN
			RAISE EXCEPTION 'tenant "%" has data', tenant USING ERRCODE = 'dependent_objects_still_exist',
				HINT = 'drop_tenant(tenant, purge => true) deletes all of it, with its audit log, for good.';
		END IF;
	END LOOP;
	PERFORM contactsync._forget_tenant_counters(tenant);
	DELETE FROM contactsync.tenant_state s WHERE s.tenant_id = tenant;
	DELETE FROM contactsync.tenants x WHERE x.tenant_id = tenant;
END
$$;
CREATE FUNCTION contactsync.drop_tenant(tenant text, purge boolean DEFAULT false) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.drop_tenant(text, boolean) IS
	'Forget a tenant; one that has data only with purge, which deletes all of it for good. For superusers and members of contactsync_owner. Errors: 22023 no such tenant, 2BP01 it has data.';
