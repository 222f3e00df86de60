-- The policy as a value, and as what set_policy() makes of it.
SET search_path = contactsync, public;
SET TimeZone = 'UTC';

-- what comes out is one canonical form
SELECT '{"title": "manual_review", "nickname": {"rule": "last_write_wins", "sources": [], "only": false}}'::merge_policy;
SELECT '{"personal": {"rule": "source_priority", "sources": ["device", "crm"]}, "emails": "union", "business": "last_write_wins"}'::merge_policy;
SELECT '{"metadata.a.b": {"rule": "source_priority", "sources": ["crm"], "only": true}, "emails.primary": "last_write_wins"}'::merge_policy;
SELECT '{}'::merge_policy, '{"company": "last_write_wins"}'::merge_policy = '{"title": "last_write_wins"}'::merge_policy AS same,
	'{"company": "last_write_wins"}'::merge_policy <> '{}' AS differs;
SELECT count(*) FROM (SELECT p FROM (VALUES ('{"title": "last_write_wins"}'::merge_policy), ('{"job": "last_write_wins"}'), ('{}')) v (p) GROUP BY p) g;
SELECT ('{"job": "manual_review"}'::merge_policy) -> 'job' ->> 'rule' AS as_jsonb, '{"job": "manual_review"}'::jsonb::merge_policy AS of_jsonb;
CREATE TEMP TABLE kept (p merge_policy);
INSERT INTO kept VALUES ('{"job": {"rule": "source_priority", "sources": ["crm", "ä"]}, "metadata.x y": "manual_review"}');
\copy kept to 'results/merge_policy.bin' (format binary)
\copy kept from 'results/merge_policy.bin' (format binary)
COPY kept TO stdout;

-- groups of one's own: the first member leads, and members leave the group they were in
SELECT '{"work": {"members": ["title", "nickname", "company"]}, "department": "manual_review"}'::merge_policy;
SELECT merge_policy_unit('{"work": {"members": ["title", "nickname", "company"]}}', f) FROM unnest('{title,department,first_name,note,emails,shoe}'::text[]) f;
SELECT '{"job": {"members": ["title"]}, "company": "manual_review"}'::merge_policy;

-- what is refused, and where
CREATE FUNCTION refused(policy text) RETURNS TABLE (code text, message text, detail text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM policy::contactsync.merge_policy;
	RETURN QUERY SELECT 'accepted', policy, '';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	RETURN NEXT;
END
$$;
SELECT r.* FROM unnest(ARRAY[
	'{', '[]', '"x"', '{"shoe": "last_write_wins"}', '{"title": {}}', '{"title": []}', '{"title": 1}', '{"title": "coin_toss"}',
	'{"title": {"rule": 3}}', '{"title": {"rule": "last_write_wins", "sauces": []}}', '{"title": {"rule": "source_priority"}}', '{"title": "source_priority"}',
	'{"title": {"rule": "source_priority", "sources": "crm"}}', '{"title": {"rule": "source_priority", "sources": [["crm"]]}}',
	'{"title": {"rule": "last_write_wins", "only": true}}', '{"title": {"rule": "last_write_wins", "only": "yes"}}',
	'{"title": "union"}', '{"metadata.k": "union"}', '{"metadata.": "last_write_wins"}', '{"emails": "manual_review"}',
	'{"tags.primary": "last_write_wins"}', '{"emails.primary": "union"}', '{"emails.primary": "manual_review"}', '{".primary": "union"}',
	'{"title": "last_write_wins", "company": "last_write_wins"}',
	'{"work": "last_write_wins"}', '{"work": {"members": []}}', '{"work": {"members": "title"}}', '{"work": {"members": ["emails"]}}',
	'{"work": {"members": ["title", "title"]}}', '{"work": {"members": ["title"]}, "play": {"members": ["title"]}}',
	'{"title": {"members": ["title"]}}', '{"business": {"members": ["title"]}}', '{"my.work": {"members": ["title"]}}', '{"Work": {"members": ["title"]}}',
	'{"work": {"members": ["title", "company", "department"]}, "job": "manual_review"}',
	'{"": "last_write_wins"}', '{"a\"b": "last_write_wins"}']) p, refused(p) r;

-- set_policy: one version a transaction, as long as nothing was resolved by it
BEGIN;
TRUNCATE sources, inbox, records, observations, contacts, identities, contact_aliases, conflicts, decisions, policies;
SELECT add_source('crm', 'canonical') > 0 AS added;
SELECT set_policy('note', 'manual_review'), set_policy('note', 'source_priority', '{crm,nobody}'), set_policy('job', 'last_write_wins', '{crm}', '{"only": true}');
SELECT version, policy FROM policies;
SELECT ingest('crm', '1', '{"last_name": "Lee"}', '2026-01-01') > 0 AS ingested, process();
SELECT set_policy('note', 'last_write_wins');
SELECT version, policy -> 'note' ->> 'rule' AS note FROM policies ORDER BY 1;
SELECT policy_version FROM contacts;
SELECT process(), (SELECT policy_version FROM contacts);
SELECT policy_version FROM contacts;
-- nothing changed, no version
SELECT set_policy('note', 'last_write_wins');
SELECT max(version) FROM policies;
-- a group keeps its members until they are said anew; a rule of a new member's own is dropped
SELECT set_policy('work', 'source_priority', '{crm}', '{"members": ["company", "note"]}');
SELECT set_policy('note', 'last_write_wins');
SELECT set_policy('title', 'manual_review');
SELECT set_policy('business', 'last_write_wins', '{crm}');
SELECT jsonb_pretty(current_policy());
\set VERBOSITY terse
SAVEPOINT s;
SELECT unset_policy('shoes');
ROLLBACK TO s;
SELECT unset_policy('tags.primary');
ROLLBACK TO s;
SELECT set_policy('title', 'last_write_wins', options => '{"members": ["title"]}');
ROLLBACK TO s;
SELECT set_policy('title', 'last_write_wins', options => '[]');
ROLLBACK TO s;
SELECT unset_policy('work');
SELECT current_policy();
SELECT unset_policy('business'), unset_policy('personal');
SELECT current_policy(), pg_typeof(current_policy());
ROLLBACK;
DROP FUNCTION refused;
