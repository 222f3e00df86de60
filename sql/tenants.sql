-- Tenants are kept apart: whatever a role sets, it sees its own tenant only.
\set VERBOSITY terse
CREATE ROLE cs_acme; CREATE ROLE cs_acme_app LOGIN IN ROLE cs_acme, contactsync_app;
CREATE ROLE cs_globex; CREATE ROLE cs_globex_app LOGIN IN ROLE cs_globex, contactsync_app;
CREATE ROLE cs_nobody;
SELECT contactsync.add_tenant('acme', 'cs_acme'), contactsync.add_tenant('globex', 'cs_globex');
SELECT contactsync.add_tenant('acme', 'cs_acme');
SELECT contactsync.add_tenant('acme', 'cs_globex');
SELECT contactsync.add_tenant('initech');
SELECT contactsync.add_tenant('initech', 'cs_no_such_role');
SELECT contactsync.add_tenant('*', 'cs_acme');
INSERT INTO contactsync.contacts (tenant_id, id, contact, live, policy_version, last_modified, modified_by)
	SELECT t, md5(t)::uuid, jsonb_build_object('company', t)::contactsync.contact, true, 0, now(), 'test'
	FROM unnest(ARRAY['acme', 'globex', 'default']) t;

-- the superuser may act for each
SET contactsync.tenant = 'acme';
SELECT contactsync.current_tenant();
SET contactsync.tenant = 'no such';
SELECT contactsync.current_tenant();
RESET contactsync.tenant;

SET ROLE cs_acme_app;
SET contactsync.tenant = 'acme';
SELECT contactsync.current_tenant(), tenant_id, contact FROM contactsync.contacts;
-- each of these must fail or show nothing of another tenant
SET contactsync.tenant = 'globex';
SELECT count(*) FROM contactsync.contacts;
SELECT contactsync.current_tenant();
SET contactsync.tenant = 'acme';
SET row_security = off;
SELECT count(*) FROM contactsync.contacts;
RESET row_security;
SELECT * FROM contactsync.tenants;
SELECT * FROM contactsync.source_secrets;
SELECT contactsync._pin('globex');
SELECT contactsync._lock_tenant();
SELECT contactsync._caller();
SELECT contactsync.add_tenant('mine', 'cs_acme');
SELECT contactsync.drop_tenant('globex', true);
INSERT INTO contactsync.contacts (tenant_id, id, contact, live, policy_version, last_modified, modified_by)
	VALUES ('acme', gen_random_uuid(), '{}', true, 0, now(), 'forged');
UPDATE contactsync.contacts SET modified_by = 'forged';
DELETE FROM contactsync.contacts;
TRUNCATE contactsync.contacts;
CREATE TABLE contactsync.mine (i integer);
-- a leaky function is not asked about other tenants' rows
CREATE FUNCTION pg_temp.leak(c contactsync.contact) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
	$$BEGIN RAISE NOTICE 'saw %', c ->> 'company'; RETURN true; END$$;
SET search_path = contactsync, pg_catalog;
SELECT count(*) FROM contactsync.contacts WHERE pg_temp.leak(contact);
RESET search_path;
-- a function that shadows one of ours in the search path is not called
CREATE FUNCTION pg_temp.current_tenant() RETURNS text LANGUAGE sql AS $$SELECT 'globex'::text$$;
SET search_path = pg_temp, contactsync, pg_catalog;
SELECT tenant_id FROM contactsync.contacts;
RESET search_path;
SET standard_conforming_strings = off; SET escape_string_warning = off;
SELECT tenant_id FROM contactsync.contacts;
RESET standard_conforming_strings; RESET escape_string_warning;
RESET ROLE;

-- one who is a member of nothing learns nothing
SET ROLE cs_nobody;
SELECT contactsync.current_tenant();
SELECT count(*) FROM contactsync.contacts;
RESET ROLE;
-- a tenant's member without a contactsync role has no right to the tables
SET ROLE cs_acme;
SET contactsync.tenant = 'acme';
SELECT count(*) FROM contactsync.contacts;
RESET ROLE; RESET contactsync.tenant;

-- a tenant goes with all that is its own, and nothing else
SELECT contactsync.drop_tenant('acme');
SELECT contactsync.drop_tenant('acme', true);
SELECT contactsync.drop_tenant('acme', true);
SELECT contactsync.drop_tenant('default', true);
SELECT tenant_id, count(*) FROM contactsync.contacts WHERE tenant_id <> 'default' GROUP BY 1 ORDER BY 1;
SELECT contactsync.drop_tenant('globex', true);
SELECT tenant_id FROM contactsync.tenants;
DELETE FROM contactsync.contacts;
DROP FUNCTION pg_temp.leak(contactsync.contact), pg_temp.current_tenant();
DROP ROLE cs_acme_app, cs_globex_app, cs_acme, cs_globex, cs_nobody;
