-- The state computed anew: from the facts, and by another policy.

CREATE FUNCTION contactsync.rebuild(dry_run boolean DEFAULT true)
	RETURNS TABLE (contact_id uuid, field text, stored jsonb, computed jsonb)
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'store_rebuild_sql';
COMMENT ON FUNCTION contactsync.rebuild(boolean) IS
	'Compute all records, links, contacts and conflicts of the tenant anew from observations, sightings, decisions and the policy in force, and return what differs from what is stored: fields of contacts, record:<source>/<source_id>, conflict:<field>, decision:<id>. A dry run only reads, under one snapshot, with the parallel workers of an index build; otherwise what differs is repaired, under the tenant''s lock, with audit rows of cause rebuild. Errors: 40001, 55000 dormant copy (not in a dry run).';
CREATE FUNCTION contactsync.verify()
	RETURNS TABLE (contact_id uuid, problem text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'store_verify_sql';
COMMENT ON FUNCTION contactsync.verify() IS
	'What a rebuild would find wrong, without values; empty when the state is what its facts give. Contacts that a new policy has yet to reach are held to their own. Takes no lock.';
CREATE FUNCTION contactsync.what_if(policy contactsync.merge_policy)
	RETURNS TABLE (contact_id uuid, field text, current jsonb, proposed jsonb)
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'store_what_if_sql';
COMMENT ON FUNCTION contactsync.what_if(contactsync.merge_policy) IS
	'Every field of every contact that would change under another policy, and as conflict:<field> every conflict that would open (proposed is "open") or close (current is). Changes nothing and takes no lock.';
CREATE FUNCTION contactsync.what_if_conflicts(policy contactsync.merge_policy)
	RETURNS TABLE (field text, opens bigint, closes bigint)
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE AS $$
	SELECT pg_catalog.substr(w.field, 10), pg_catalog.count(w.proposed), pg_catalog.count(w.current)
	FROM contactsync.what_if($1) w WHERE w.field OPERATOR(pg_catalog.~~) 'conflict:%' GROUP BY w.field ORDER BY w.field
$$;
COMMENT ON FUNCTION contactsync.what_if_conflicts(contactsync.merge_policy) IS
	'How many conflicts would open and close under another policy, by field.';
GRANT EXECUTE ON FUNCTION contactsync.rebuild(boolean) TO contactsync_admin;
GRANT EXECUTE ON FUNCTION contactsync.verify(), contactsync.what_if(contactsync.merge_policy), contactsync.what_if_conflicts(contactsync.merge_policy)
	TO contactsync_admin, contactsync_analyst;

CREATE FUNCTION contactsync.selftest_convergence(n integer DEFAULT 100, seed bigint DEFAULT NULL)
	RETURNS TABLE (contact_id uuid, problem text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'store_selftest_sql';
COMMENT ON FUNCTION contactsync.selftest_convergence(integer, bigint) IS
	'Fold, link and resolve the stored observations of n random contacts, and of all that they are connected with, in random orders, with repetitions and in random batches: a row for each result that differs from what is stored, and so none. A notice gives the seed that repeats the run. Changes nothing and takes no lock. Errors: 22023.';
GRANT EXECUTE ON FUNCTION contactsync.selftest_convergence(integer, bigint) TO contactsync_admin, contactsync_analyst;

CREATE FUNCTION contactsync._remap(source text) RETURNS bigint
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'store_remap_sql';
CREATE FUNCTION contactsync.remap(source text) RETURNS bigint
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.remap(text) IS
	'Read the payloads of a source that are kept by the mapping its connector has now, with all that follows for records, links and contacts, whose audit rows have the cause remap; the number of observations that claim something else than before. One that cannot be read keeps its claims, with a warning; those without a payload are counted in a notice. Errors: 42704 unknown source, 40001, 55000 dormant copy.';
GRANT EXECUTE ON FUNCTION contactsync.remap(text) TO contactsync_admin;
