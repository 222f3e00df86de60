-- Undo is a decision: nothing is rewritten, an undo of an undo applies again, parts go with their whole.
\set VERBOSITY terse
SET client_min_messages = warning;
BEGIN;
SET search_path = contactsync, pg_catalog;
SELECT count(add_source(s, 'canonical')) FROM unnest(ARRAY['da', 'db']) s;
SELECT set_policy('note', 'manual_review');
SELECT count(ingest(s, '1', jsonb_build_object('note', s, 'emails', ARRAY['u@x.org']), '2026-01-01')) FROM unnest(ARRAY['da', 'db']) s;
SELECT process();
SELECT find('u@x.org') AS who \gset
SELECT note FROM directory WHERE id = :'who';
SELECT resolve_conflict(id, 2) FROM conflicts WHERE contact_id = :'who';
SELECT max(id) AS decision FROM decisions \gset
SELECT note FROM directory WHERE id = :'who';

SELECT undo(:decision, 'hasty') AS first \gset
SELECT note, open_conflicts FROM directory WHERE id = :'who';
-- once is enough
SELECT undo(:decision) = :first AS same;
-- an undo of the undo: what was decided first holds again
SELECT undo(:first) AS second \gset
SELECT note, open_conflicts FROM directory WHERE id = :'who';
-- and so on
SELECT count(undo(:decision));
SELECT note, open_conflicts FROM directory WHERE id = :'who';
SELECT count(undo(:second));
SELECT note, open_conflicts FROM directory WHERE id = :'who';
SELECT kind, target - :decision AS of_decision, undone_by - :decision AS undone_by, note FROM decisions WHERE id >= :decision ORDER BY id;
-- decided_at grows, whatever the clock says
SELECT bool_and(decided_at > before) FROM (SELECT decided_at, lag(decided_at) OVER (ORDER BY id) AS before FROM decisions) d WHERE before IS NOT NULL;

SELECT * FROM verify();
\set ON_ERROR_STOP 0
SAVEPOINT s;
SELECT undo(0);
ROLLBACK;
\set ON_ERROR_STOP 1

-- merged, edited, split: each side has what it had, and what nobody can attribute is asked about
BEGIN;
SET search_path = contactsync, pg_catalog;
SELECT count(add_source(s, 'canonical')) FROM unnest(ARRAY['ma', 'mb']) s;
SELECT count(ingest('ma', '1', '{"first_name": "Ann", "last_name": "One", "title": "CTO", "note": "same", "emails": ["one@x.org"]}', '2026-01-01'));
SELECT count(ingest('mb', '1', '{"first_name": "Bea", "last_name": "Two", "title": "CEO", "note": "same", "emails": ["two@x.org"]}', '2026-01-01')), process();
SELECT find('one@x.org') AS one, find('two@x.org') AS two \gset
SELECT contact AS one_was FROM contacts WHERE id = :'one' \gset
SELECT contact AS two_was FROM contacts WHERE id = :'two' \gset
SELECT merge_contacts(:'one', :'two');
SELECT id AS merge FROM decisions WHERE kind = 'merge' \gset
SELECT count(override_field(:'one', f, to_jsonb(v))) FROM (VALUES ('title', 'Chair'), ('note', 'same'), ('nickname', 'Joe')) o (f, v);
SELECT title, note, nickname, open_conflicts FROM directory;
SELECT undo(:merge) > 0 AS undone;
SELECT last_name, title, note, nickname, open_conflicts,
	contact_identical(contact, CASE id WHEN :'one' THEN :'one_was' ELSE :'two_was' END::contact) AS as_it_was
FROM directory ORDER BY last_name;
SELECT last_name, field, reason, state, c -> 'value' AS value, c ->> 'source' AS source FROM conflicts k JOIN directory d ON d.id = k.contact_id, jsonb_array_elements(candidates) c
WHERE state = 'open' ORDER BY last_name, field, c ->> 'candidate';
-- settled: the one keeps it, the other does not
SELECT resolve_conflict(k.id, 1) FROM conflicts k WHERE k.contact_id = :'one' AND k.field = 'title' AND k.state = 'open';
SELECT count(release_override(:'two', f)) AS released FROM unnest(ARRAY['title', 'nickname']) f;
SELECT last_name, title, nickname, open_conflicts FROM directory ORDER BY last_name;
SELECT * FROM verify();
ROLLBACK;

-- while it is asked whom a decision was meant for, the sources fill each other's gaps as without it
BEGIN;
SET search_path = contactsync, pg_catalog;
SELECT count(add_source(s, 'canonical')) FROM unnest(ARRAY['ma', 'mb', 'mc']) s;
SELECT count(ingest('ma', '1', '{"last_name": "Lee", "emails": ["lee@x.org"]}', '2026-01-02', 'patch'));
SELECT count(ingest('mb', '1', '{"first_name": "Ann", "last_name": "Lee", "emails": ["lee@x.org"]}', '2026-01-01', 'patch'));
SELECT count(ingest('mc', '1', '{"note": "whose?"}', '2026-01-03', 'patch')), process();
SELECT find('lee@x.org') AS lee \gset
SELECT merge_contacts(:'lee', (SELECT id FROM directory WHERE id <> :'lee'));
SELECT count(override_field(:'lee', 'name', '{"last_name": "Over"}'));
SELECT first_name, last_name, open_conflicts FROM directory;
SELECT count(split_contact(:'lee', (SELECT array_agg(id) FROM records WHERE source = 'mc')));
SELECT first_name, last_name, open_conflicts FROM directory WHERE id = :'lee';
SELECT * FROM verify();
ROLLBACK;

-- undos of undos, more of them than would fit on the stack
BEGIN;
SET search_path = contactsync, pg_catalog;
SELECT add_source('chain', 'canonical') > 0 AS added;
SELECT count(ingest('chain', '1', '{"note": "said", "emails": ["c@x.org"]}', '2026-01-01')), process();
SELECT find('c@x.org') AS who \gset
SELECT override_field(:'who', 'note', '"decided"') AS decision \gset
SET LOCAL max_stack_depth = '100kB';
SELECT count(undo(n)) FROM generate_series(:decision, :decision + 40) n;
SELECT note FROM directory WHERE id = :'who';
SELECT count(undo(:decision + 41));
SELECT note FROM directory WHERE id = :'who';
SELECT count(*) FILTER (WHERE undone_by IS NULL) AS in_force, count(*) FILTER (WHERE undone_by = id + 1) AS undone FROM decisions WHERE id >= :decision;
SELECT * FROM verify();
-- wrong all along, and put right again
UPDATE decisions SET undone_by = CASE WHEN undone_by IS NULL THEN :decision + 41 END WHERE id BETWEEN :decision AND :decision + 20;
SELECT count(*) FROM verify() WHERE problem LIKE 'decision:%';
SELECT count(*) > 0 AS repaired FROM rebuild(dry_run => false);
SELECT * FROM verify();
SELECT count(*) FILTER (WHERE undone_by IS NULL) AS in_force, count(*) FILTER (WHERE undone_by = id + 1) AS undone FROM decisions WHERE id >= :decision;
SELECT note FROM directory WHERE id = :'who';
ROLLBACK;
