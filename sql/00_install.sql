-- The extension installs, and what it installs is documented and guarded.
CREATE EXTENSION contactsync;
SELECT extversion FROM pg_extension WHERE extname = 'contactsync';

-- every table of a tenant: owned by contactsync_owner, row security forced
SELECT relname, pg_get_userbyid(relowner) AS owner, relrowsecurity, relforcerowsecurity
FROM pg_class
WHERE relnamespace = 'contactsync'::regnamespace AND relkind IN ('r', 'p')
ORDER BY relname COLLATE "C";

-- what PUBLIC may call: functions of values, and current_tenant()
SELECT p.oid::regprocedure AS more_for_public
FROM pg_proc p
WHERE p.pronamespace = 'contactsync'::regnamespace AND p.provolatile <> 'i'
  AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 0))
ORDER BY p.oid::regprocedure::text COLLATE "C";

-- nothing public without a comment
SELECT p.oid::regprocedure AS undocumented
FROM pg_proc p
WHERE p.pronamespace = 'contactsync'::regnamespace AND p.proname !~ '^_'
  AND p.proname NOT IN ('contact_in', 'contact_out', 'contact_recv', 'contact_send',
	'merge_policy_in', 'merge_policy_out', 'merge_policy_recv', 'merge_policy_send',
	'merge_state_in', 'merge_state_out', 'merge_state_recv', 'merge_state_send')
  AND obj_description(p.oid, 'pg_proc') IS NULL;
SELECT oid::regclass AS undocumented FROM pg_class
WHERE relnamespace = 'contactsync'::regnamespace AND relkind IN ('r', 'p', 'v')
  AND obj_description(oid, 'pg_class') IS NULL;

-- no role of ours can log in or bypass row security
SELECT rolname FROM pg_roles
WHERE rolname LIKE 'contactsync%' AND (rolcanlogin OR rolsuper OR rolbypassrls OR rolcreaterole);
