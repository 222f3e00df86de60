-- Overrides: above every rule until they are released, visibly stale, of single values, groups, members, metadata and lists.
\set VERBOSITY terse
SET client_min_messages = warning;
BEGIN;
SET search_path = contactsync, pg_catalog;
SELECT count(add_source(s, 'canonical')) FROM unnest(ARRAY['oa', 'ob']) s;
SELECT count(ingest('oa', '1', '{"first_name": "Ann", "last_name": "Lee", "company": "Acme", "title": "CTO", "note": "a", "emails": ["o@x.org", "p@x.org"], "phones": ["+16502530000"], "metadata": {"k": 1}, "tags": ["t"]}', '2026-01-01'));
SELECT count(ingest('ob', '1', '{"last_name": "Lee", "company": "Home", "note": "b", "emails": [{"address": "o@x.org", "verified": true}]}', '2026-01-02'));
SELECT process();
SELECT find('o@x.org') AS who \gset

-- a single value, above last_write_wins
SELECT override_field(:'who', 'note', '"mine"', 'I know') AS d1 \gset
SELECT note, provenance -> 'note' -> 'flags' AS flags, open_conflicts FROM directory WHERE id = :'who';
SELECT field, rank, value, source, rule, verdict, decided_by IS NOT NULL AS decided, stale FROM explain(:'who', 'note');
-- the same again is nothing new
SELECT override_field(:'who', 'note', '"mine"') = :d1 AS same;
-- a source that says something new does not win, but is seen
SELECT count(ingest('oa', '1', '{"note": "news"}', clock_timestamp(), 'patch')), process();
SELECT note, open_conflicts FROM directory WHERE id = :'who';
SELECT field, rank, value, source, verdict, stale FROM explain(:'who', 'note');
SELECT field, value, stale, reason FROM overrides WHERE contact_id = :'who';
SELECT field, reason, state, c ->> 'source' AS source, c -> 'value' AS value FROM conflicts, jsonb_array_elements(candidates) c
WHERE contact_id = :'who' AND state = 'open';
-- saying it once more is to know
SELECT override_field(:'who', 'note', '"mine"') > :d1 AS new;
SELECT field, value, stale FROM overrides WHERE contact_id = :'who';
SELECT open_conflicts FROM directory WHERE id = :'who';
-- one that agrees is no news
SELECT count(ingest('ob', '1', '{"note": "mine"}', clock_timestamp(), 'patch')), process();
SELECT open_conflicts FROM directory WHERE id = :'who';
-- released: the rules again, and none of the older ones comes up
SELECT release_override(:'who', 'note') AS r1 \gset
SELECT note FROM directory WHERE id = :'who';
SELECT release_override(:'who', 'note') IS NULL AS nothing;
-- a release can be undone
SELECT count(undo(:r1));
SELECT note, (SELECT count(*) FROM overrides) AS overrides FROM directory WHERE id = :'who';
SELECT release_override(:'who', 'note') > 0 AS released;

-- that there is none
SELECT override_field(:'who', 'note', 'null') > 0 AS ok;
SELECT note FROM directory WHERE id = :'who';
SELECT field, rank, value, source, verdict FROM explain(:'who', 'note');
SELECT release_override(:'who', 'note') > 0 AS released;

-- a stale one is settled by choice, and is an override still
SELECT override_field(:'who', 'title', '"CEO"') > 0 AS ok;
SELECT count(ingest('oa', '1', '{"title": "Chair"}', clock_timestamp(), 'patch')), process();
SELECT title FROM directory WHERE id = :'who';
SELECT resolve_conflict(id, 1) FROM conflicts WHERE contact_id = :'who' AND reason = 'stale' AND state = 'open';
SELECT title, open_conflicts FROM directory WHERE id = :'who';
SELECT field, value, stale FROM overrides;

-- one member of a group: the others stay with the rule
SELECT count(ingest('ob', '1', '{"company": "Late", "title": "Clerk"}', clock_timestamp(), 'patch')), process();
SELECT company, title FROM directory WHERE id = :'who';
SELECT field, rank, value, source, verdict, stale FROM explain(:'who') WHERE field IN ('company', 'department', 'title');
-- the whole group, later: the member's is past
SELECT override_field(:'who', 'job', '{"company": "Whole", "department": "IT"}') AS d2 \gset
SELECT company, department, title FROM directory WHERE id = :'who';
SELECT field, value FROM overrides;
-- the group named whole: its members with it
SELECT release_override(:'who', 'job') > 0 AS released;
SELECT company, department, title, (SELECT count(*) FROM overrides) AS overrides FROM directory WHERE id = :'who';

-- metadata, of a key that nobody has, too
SELECT override_field(:'who', 'metadata.k', '{"a": [1]}') > 0 AS ok, override_field(:'who', 'metadata.of me', '2') > 0 AS ok;
SELECT metadata FROM directory WHERE id = :'who';
SELECT release_override(:'who', 'metadata') > 0 AS released;
SELECT metadata FROM directory WHERE id = :'who';

-- elements: one that is removed comes back only if it is asserted later
SELECT override_field(:'who', 'emails:P@x.org', 'null') AS d3 \gset
SELECT emails FROM directory WHERE id = :'who';
SELECT field, rank, value, source, verdict FROM explain(:'who', 'emails');
SELECT field, value FROM overrides;
SELECT count(ingest('ob', '2', '{"last_name": "Lee", "emails": ["o@x.org", "p@x.org"]}', '2026-03-01')), process();
SELECT emails FROM directory WHERE id = :'who';
SELECT count(ingest('ob', '1', '{"emails": {"add": ["p@x.org"]}}', clock_timestamp(), 'patch')), process();
SELECT emails, open_conflicts, (SELECT count(*) FROM overrides) AS overrides FROM directory WHERE id = :'who';
-- and is removed again
SELECT override_field(:'who', 'emails:p@x.org', 'null') > :d3 AS new;
SELECT emails FROM directory WHERE id = :'who';
-- one that is added, and is to be the primary one
SELECT override_field(:'who', 'emails:q@x.org', '{"address": "Q@x.org", "type": "home", "primary": true}') > 0 AS ok;
SELECT emails FROM directory WHERE id = :'who';
SELECT field, value FROM overrides ORDER BY field;
-- a whole list
SELECT override_field(:'who', 'emails', '["z@x.org", "o@x.org"]') > 0 AS ok;
SELECT emails FROM directory WHERE id = :'who';
SELECT field, value FROM overrides ORDER BY field;
SELECT count(ingest('ob', '1', '{"emails": {"add": ["new@x.org"]}}', clock_timestamp(), 'patch')), process();
SELECT emails, open_conflicts FROM directory WHERE id = :'who';
SELECT field, element, reason, candidates -> 0 -> 'value' AS value FROM conflicts WHERE contact_id = :'who' AND state = 'open';
SELECT resolve_conflict(id, 1) FROM conflicts WHERE contact_id = :'who' AND state = 'open';
SELECT emails, open_conflicts FROM directory WHERE id = :'who';
SELECT release_override(:'who', 'emails') > 0 AS released;
SELECT emails FROM directory WHERE id = :'who';
SELECT override_field(:'who', 'phones:+1 650-253-0000', 'null') > 0 AS ok, override_field(:'who', 'tags:T', 'null') > 0 AS ok;
SELECT phones, tags FROM directory WHERE id = :'who';
SELECT release_override(:'who', 'phones:+16502530000') > 0 AS released, release_override(:'who', 'tags') > 0 AS released;
SELECT phones, tags FROM directory WHERE id = :'who';

-- under manual_review: knows what it saw, and asks again on something new
SELECT set_policy('note', 'manual_review'), process();
SELECT note, open_conflicts FROM directory WHERE id = :'who';
SELECT override_field(:'who', 'note', '"decided"') > 0 AS ok;
SELECT note, open_conflicts FROM directory WHERE id = :'who';
SELECT count(ingest('oa', '1', '{"note": "again"}', clock_timestamp(), 'patch')), process();
SELECT note, open_conflicts FROM directory WHERE id = :'who';
SELECT reason, state, jsonb_array_length(candidates) FROM conflicts WHERE contact_id = :'who' AND field = 'note';
SELECT release_override(:'who', 'note') > 0 AS released;

-- two overrides, each made where the other was not known: the later wins, and the other is not lost
SELECT count(ingest('oa', '7', '{"nickname": "x", "emails": ["seven@x.org"]}', '2026-01-01')), count(ingest('ob', '7', '{"nickname": "y", "emails": ["sieben@x.org"]}', '2026-01-01')), process();
SELECT override_field(find('sieben@x.org'), 'nickname', '"older"') > 0 AS ok;
SELECT override_field(find('seven@x.org'), 'nickname', '"later"') > 0 AS ok;
SELECT count(ingest('oa', '7', '{"emails": {"add": ["sieben@x.org"]}}', clock_timestamp(), 'patch')), process();
SELECT find('seven@x.org') AS seven \gset
SELECT nickname, open_conflicts FROM directory WHERE id = :'seven';
SELECT field, reason, state, c -> 'value' AS value, c ->> 'source' AS source, c ? 'decision' AS decision FROM conflicts, jsonb_array_elements(candidates) c WHERE contact_id = :'seven';
SELECT resolve_conflict(id, 2) FROM conflicts WHERE contact_id = :'seven' AND state = 'open';
SELECT nickname, open_conflicts FROM directory WHERE id = :'seven';
-- one that saw the other just takes its place
SELECT override_field(:'seven', 'nickname', '"newest"') > 0 AS ok;
SELECT nickname, open_conflicts FROM directory WHERE id = :'seven';

SELECT * FROM verify();
\set ON_ERROR_STOP 0
SAVEPOINT s;
SELECT override_field('00000000-0000-0000-0000-000000000000', 'note', '"x"');
ROLLBACK TO s;
SELECT override_field(:'who', 'nonsense', '"x"');
ROLLBACK TO s;
SELECT override_field(:'who', 'metadata', '{"k": 1}');
ROLLBACK TO s;
SELECT override_field(:'who', 'note:x', '"x"');
ROLLBACK TO s;
SELECT override_field(:'who', 'emails:', '"x"');
ROLLBACK TO s;
SELECT override_field(:'who', 'emials:somebody@x.org', '"x"');
ROLLBACK TO s;
SELECT override_field(:'who', 'emails:a@x.org', '"b@x.org"');
ROLLBACK TO s;
SELECT override_field(:'who', 'job', '"boss"');
ROLLBACK TO s;
SELECT override_field(:'who', 'job', '{"note": "boss"}');
ROLLBACK TO s;
SELECT override_field(:'who', 'note', '[1]');
ROLLBACK TO s;
SELECT override_field(:'who', 'note', NULL);
ROLLBACK;
