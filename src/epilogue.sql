-- Rights of functions, at the end, so that none is forgotten: pure functions of
-- values are for everybody, all else, and what begins with an underscore and so
-- checks its arguments the less, is for those it was granted to.
DO $$
DECLARE
	f regprocedure;
BEGIN
	FOR f IN
		SELECT p.oid FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = 'contactsync'::pg_catalog.regnamespace AND (p.provolatile <> 'i' OR p.proname LIKE '\_%')
	LOOP
		EXECUTE pg_catalog.format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', f);
	END LOOP;
	-- bodies behind the guard run as the owner
	FOR f IN
		SELECT p.oid FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = 'contactsync'::pg_catalog.regnamespace
	LOOP
		EXECUTE pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO contactsync_owner', f);
	END LOOP;
END
$$;
-- row security and column defaults ask it on behalf of everybody who may use a table
GRANT EXECUTE ON FUNCTION contactsync.current_tenant() TO PUBLIC;
