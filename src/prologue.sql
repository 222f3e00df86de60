\echo Use "CREATE EXTENSION contactsync" to load this file. \quit

-- Roles are cluster-wide: made where missing, and refused where a role of that
-- name could log in or is a superuser, since rights are about to go to it.
DO $$
DECLARE
	r record;
	n text;
BEGIN
	FOREACH n IN ARRAY ARRAY['contactsync_owner', 'contactsync_worker', 'contactsync_admin',
							 'contactsync_app', 'contactsync_analyst']
	LOOP
		SELECT rolcanlogin, rolsuper, rolbypassrls INTO r FROM pg_catalog.pg_roles WHERE rolname = n;
		IF NOT FOUND THEN
			EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS', n);
		ELSIF r.rolcanlogin OR r.rolsuper OR r.rolbypassrls THEN
			RAISE EXCEPTION 'role "%" exists and is not a plain group role', n
				USING ERRCODE = 'duplicate_object',
					  HINT = 'It must have NOLOGIN, NOSUPERUSER and NOBYPASSRLS. Rename or alter it, then create the extension.';
		END IF;
	END LOOP;
END
$$;

-- a member of the extension, and so dropped with it
CREATE SCHEMA contactsync;
GRANT USAGE ON SCHEMA contactsync
	TO contactsync_owner, contactsync_worker, contactsync_admin, contactsync_app, contactsync_analyst;
-- partitions of audit_log are made at run time
GRANT CREATE ON SCHEMA contactsync TO contactsync_owner;

