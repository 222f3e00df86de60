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

\set ON_ERROR_STOP 0
SAVEPOINT s;
SELECT undo(0);
ROLLBACK;
