-- Manual review as a workflow: assigned, settled one by one or in bulk, opened anew, counted.
\set VERBOSITY terse
BEGIN;
SET search_path = contactsync, pg_catalog;
SELECT count(add_source(s, 'canonical', c::jsonb)) FROM (VALUES ('ra', '{"class": "crm"}'), ('rb', '{"class": "device"}'), ('rc', '{}')) s (s, c);
SELECT set_policy('note', 'manual_review'), set_policy('job', 'manual_review');
SELECT count(ingest(s, i::text, jsonb_build_object('note', s || i, 'title', s, 'emails', ARRAY['r' || i || '@x.org']), '2026-01-01'))
FROM unnest(ARRAY['ra', 'rb']) s, generate_series(1, 3) i;
SELECT count(ingest('rc', '4', '{"note": "rc", "emails": ["r3@x.org"]}', '2026-01-01')), process();
SELECT field, reason, state, conflicts FROM conflict_counts ORDER BY field;
SELECT field, reason, state, assignee, candidates, age >= '0' AS aged FROM conflict_queue WHERE contact_id = (SELECT find('r1@x.org')) ORDER BY field;

-- assigned; it stays so when it is opened anew
SELECT id AS mine FROM conflict_queue WHERE contact_id = (SELECT find('r1@x.org')) AND field = 'note' \gset
SELECT assign_conflict(:mine, 'steward'), assign_conflict(:mine, 'steward');
SELECT state, assignee, assigned_at IS NOT NULL AS at FROM conflicts WHERE id = :mine;
SELECT open_conflicts FROM directory WHERE id = (SELECT find('r1@x.org'));
SELECT count(ingest('ra', '1', '{"note": "more"}', '2026-01-02', 'patch')), process();
SELECT state, assignee, candidates -> 0 -> 'value' AS value FROM conflicts WHERE id = :mine;
SELECT resolve_conflict(:mine, 1);
SELECT state, assignee FROM conflicts WHERE id = :mine;
SELECT count(ingest('rb', '1', '{"note": "anew"}', clock_timestamp(), 'patch')), process();
SELECT state, assignee FROM conflicts WHERE id = :mine;
SELECT assign_conflict(:mine, NULL);
SELECT state, assignee, assigned_at FROM conflicts WHERE id = :mine;

-- in bulk, by query: by the first source or class that has a candidate
SELECT resolve_conflicts(array_agg(id), '{rc,device}', 'agreed') FROM conflict_queue WHERE field IN ('note', 'job');
SELECT note, title, open_conflicts FROM generate_series(1, 3) i, directory d WHERE d.id IN (SELECT find('r' || i || '@x.org')) ORDER BY i;
SELECT field, state, conflicts FROM conflict_counts ORDER BY field, state;
-- the same again finds nothing open; those that have no such candidate are left
SELECT resolve_conflicts(array_agg(id), '{rc,device}') FROM conflicts;
SELECT count(ingest('ra', '2', '{"note": "again"}', clock_timestamp(), 'patch')), process();
SELECT resolve_conflicts(array_agg(id), '{nobody}') FROM conflict_queue;
-- taken back as one
SELECT undo(part_of) > 0 AS undone FROM decisions WHERE kind = 'resolve' AND part_of IS NOT NULL LIMIT 1;
SELECT field, state, conflicts FROM conflict_counts ORDER BY field, state;
-- agreement supersedes
SELECT count(ingest(s, '2', '{"note": "same"}', clock_timestamp() + interval '1 second', 'patch')) FROM unnest(ARRAY['ra', 'rb']) s;
SELECT process();
SELECT state, count(*) FROM conflicts WHERE contact_id = (SELECT find('r2@x.org')) GROUP BY 1 ORDER BY 1;

SELECT * FROM verify();
\set ON_ERROR_STOP 0
SAVEPOINT s;
SELECT assign_conflict(0, 'x');
ROLLBACK TO s;
\set VERBOSITY sqlstate
SELECT assign_conflict(id, 'x') FROM conflicts WHERE state = 'superseded';
\set VERBOSITY terse
ROLLBACK TO s;
SELECT resolve_conflicts('{}', '{}');
ROLLBACK;

-- back to what was
BEGIN;
SET search_path = contactsync, pg_catalog;
SELECT count(add_source(s, 'canonical')) FROM unnest(ARRAY['va', 'vb']) s;
SELECT count(ingest('va', '1', '{"first_name": "Ann", "last_name": "Back", "note": "old", "nickname": "A", "emails": ["v@x.org", "w@x.org"], "tags": ["t"], "metadata": {"k": 1, "j": 1}}', '2026-01-01')), process();
SELECT find('v@x.org') AS who, clock_timestamp() AS ts \gset
SELECT count(ingest('va', '1', '{"first_name": "Anna", "last_name": "Back", "note": null, "title": "CTO", "nickname": "A", "emails": ["v@x.org", {"address": "z@x.org"}], "tags": ["T2"], "metadata": {"k": 2}}', '2026-01-02')), process();
SELECT contact::jsonb AS now FROM directory WHERE id = :'who';
SELECT revert_contact(:'who', :'ts', 'it was right') AS reverted \gset
SELECT contact::jsonb = contact_as_of(:'who', :'ts')::jsonb AS as_it_was, contact::jsonb FROM directory WHERE id = :'who';
SET LOCAL ROLE contactsync_analyst;
SELECT field, value, reason FROM overrides ORDER BY field;
RESET ROLE;
SELECT revert_contact(:'who', :'ts') IS NULL AS nothing_left;
SELECT undo(:reverted) > 0 AS undone;
SELECT contact::jsonb AS now, (SELECT count(*) FROM overrides) AS overrides FROM directory WHERE id = :'who';
SELECT undo((SELECT undone_by FROM decisions WHERE id = :reverted)) > 0 AS redone;
SELECT contact::jsonb = contact_as_of(:'who', :'ts')::jsonb AS as_it_was FROM directory WHERE id = :'who';
SELECT * FROM verify();
\set ON_ERROR_STOP 0
SAVEPOINT s;
SELECT revert_contact(:'who', '2000-01-01');
ROLLBACK;
