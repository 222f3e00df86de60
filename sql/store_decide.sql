-- Deciding a conflict: of a single value, a group and a metadata key, by choice, by a new value, by none.
\set VERBOSITY terse
SET client_min_messages = warning;
BEGIN;
SET search_path = contactsync, pg_catalog;
SELECT count(add_source(s, 'canonical')) FROM unnest(ARRAY['da', 'db']) s;
SELECT count(set_policy(f, 'manual_review')) FROM unnest(ARRAY['name', 'job', 'note', 'metadata.k']) f;
SELECT count(ingest('da', '1', '{"first_name": "Joanna", "last_name": "Lee", "company": "Acme", "title": "CTO", "note": "x", "emails": ["d@x.org"], "metadata": {"k": 1}}', '2026-01-01'));
SELECT count(ingest('db', '1', '{"first_name": "J.", "last_name": "Lee", "company": "Home", "note": "y", "emails": ["d@x.org"], "metadata": {"k": 2}}', '2026-01-02'));
SELECT process();
SELECT find('d@x.org') AS who \gset
SELECT field, element, state, jsonb_array_length(candidates) FROM conflicts WHERE contact_id = :'who' ORDER BY field;

-- by choice
SELECT count(resolve_conflict(id, (SELECT (c ->> 'candidate')::integer FROM jsonb_array_elements(candidates) c WHERE c ->> 'source' = 'db')))
FROM conflicts WHERE contact_id = :'who' AND field IN ('name', 'job');
SELECT first_name, company, title, source, open_conflicts FROM directory WHERE id = :'who';
SELECT field, rank, value, source, verdict, claim, decided_by IS NOT NULL AS decided FROM explain(:'who') WHERE field IN ('first_name', 'company', 'title') ORDER BY field, rank;
-- by a new value
SELECT resolve_conflict(id, value => '"z"', note => 'neither') FROM conflicts WHERE contact_id = :'who' AND field = 'note';
SELECT note FROM directory WHERE id = :'who';
SELECT field, rank, value, source, source_id, verdict, claim FROM explain(:'who', 'note');
-- that there is none
SELECT resolve_conflict(id, value => 'null') FROM conflicts WHERE contact_id = :'who' AND element = 'k';
SELECT metadata FROM directory WHERE id = :'who';
SELECT field, rank, value, source, verdict, claim FROM explain(:'who', 'metadata.k');
-- what was decided stays, and asks again when somebody says something new
SELECT count(ingest('da', '1', '{"note": "w"}', '2026-02-01', 'patch')), process();
SELECT note FROM directory WHERE id = :'who';
SELECT field, state FROM conflicts WHERE contact_id = :'who' ORDER BY field, element;
-- a late event about the time before it does not
SELECT resolve_conflict(id, 1) FROM conflicts WHERE contact_id = :'who' AND field = 'note';
SELECT count(ingest('da', '1', '{"first_name": "Joanna", "last_name": "Lee", "company": "Acme", "title": "CTO", "note": "w", "emails": ["d@x.org"], "metadata": {"k": 1}}', '2026-01-31')), process();
SELECT count(*) FILTER (WHERE state = 'open') AS open FROM conflicts WHERE contact_id = :'who';
-- the audit log knows all of it
SELECT operation, cause, changed FROM audit_log WHERE row_key = :'who' AND cause = 'decision' ORDER BY id;
ROLLBACK;
