-- What sources do to their own records: merge them, delete them, use their ids again.
CREATE ROLE contactsync_test_identity;
GRANT contactsync_app, contactsync_admin TO contactsync_test_identity;
SELECT contactsync.add_tenant('identity', 'contactsync_test_identity');
SET contactsync.tenant = 'identity';
SET search_path = contactsync, public;
SET TimeZone = 'UTC';
SELECT count(add_source(s, 'canonical')) FROM unnest('{crm,mkt,phone}'::text[]) s;
CREATE FUNCTION pg_temp.c(text, text) RETURNS uuid STABLE LANGUAGE sql AS
$$SELECT r.contact_id FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() AND r.source = $1 AND r.source_id = $2$$;
CREATE FUNCTION pg_temp.r(text, text) RETURNS bigint STABLE LANGUAGE sql AS
$$SELECT r.id FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() AND r.source = $1 AND r.source_id = $2$$;

-- B is merged into A: gone, and an alias of A
SELECT ingest('crm', 'A', '{"first_name": "Ann", "last_name": "Lee", "emails": ["ann@x.org"]}', '2026-01-01') > 0 AS ok;
SELECT ingest('crm', 'B', '{"first_name": "Nan", "last_name": "Leigh", "note": "old", "emails": ["nan@x.org"]}', '2026-01-01') > 0 AS ok;
SELECT ingest('mkt', 'b', '{"first_name": "Nan", "last_name": "Leigh", "emails": ["nan@x.org"]}', '2026-01-01') > 0 AS ok;
SELECT process();
SELECT pg_temp.c('crm', 'B') AS b \gset
SELECT ingest('crm', 'B', '{"into": "A"}', '2026-02-01', 'merge') > 0 AS ok;
SELECT process();
SELECT source, source_id, alive, merged_into FROM records ORDER BY 1, 2;
SELECT first_name, note, jsonb_array_length(sources) AS sources, id = find('B') AS found, id = current_contact(:'b') AS former_id_leads_there,
	id = find('nan@x.org') AS by_mail FROM directory;
-- whatever else is said of B from before, or in what order; a later delete does not undo the merge
SELECT ingest('crm', 'B', '{"note": "late"}', '2026-01-15', 'patch') > 0 AS ok;
SELECT ingest('crm', 'B', NULL, '2026-02-02', 'delete') > 0 AS ok;
SELECT process();
SELECT id = find('B') AS found, note FROM directory;
-- the merge known before either record
SELECT ingest('crm', 'D', '{"into": "C"}', '2026-02-01', 'merge') > 0 AS ok;
SELECT process();
SELECT * FROM find('D');
SELECT ingest('crm', 'C', '{"first_name": "Cleo"}', '2026-01-01') > 0 AS ok;
SELECT process();
SELECT pg_temp.c('crm', 'C') = find('D') AS found;
-- a steward knows better
SELECT split_contact(pg_temp.c('crm', 'A'), ARRAY[pg_temp.r('crm', 'B'), pg_temp.r('mkt', 'b')]) = :'b' AS own_id;
SELECT pg_temp.c('crm', 'B') = pg_temp.c('crm', 'A') AS one;
SELECT undo((SELECT max(id) FROM decisions)) > 0 AS ok;
-- and the source may take it back
SELECT ingest('crm', 'B', NULL, '2026-03-01', 'undelete') > 0 AS ok;
SELECT process();
SELECT alive, merged_into, pg_temp.c('crm', 'A') = contact_id AS one FROM records WHERE source_id = 'B';
SELECT * FROM verify();
-- what is no merge
SELECT ingest('crm', 'E', p, '2026-02-01', 'merge') > 0 AS ok FROM unnest('{"{}", null, "{\"into\": 5}", "{\"into\": \"\"}", "{\"into\": \"E\"}"}'::jsonb[]) p;
SELECT process();
SELECT error_code, error FROM inbox ORDER BY id;

-- an id that is used again for somebody else: starts afresh, names and keys of the first one do not count
SELECT ingest('crm', 'R', '{"first_name": "Rob", "last_name": "Kay", "emails": ["rob@x.org"]}', '2026-01-01') > 0 AS ok;
SELECT ingest('mkt', 'r', '{"first_name": "Rob", "last_name": "Kay", "emails": ["rob@x.org"]}', '2026-01-01') > 0 AS ok;
SELECT process();
SELECT pg_temp.c('mkt', 'r') AS rob \gset
SELECT ingest('crm', 'R', NULL, '2026-02-01', 'delete') > 0 AS ok;
SELECT ingest('crm', 'R', '{"first_name": "Zoe", "last_name": "May", "emails": ["zoe@x.org"]}', '2026-03-02', created => '2026-03-01') > 0 AS ok;
SELECT ingest('phone', 'z', '{"first_name": "Zoe", "last_name": "May", "emails": ["zoe@x.org"]}', '2026-03-03') > 0 AS ok;
SELECT process();
SELECT pg_temp.c('crm', 'R') = pg_temp.c('phone', 'z') AS zoe, pg_temp.c('crm', 'R') = pg_temp.c('mkt', 'r') AS rob;
-- Rob's id stays with Rob
SELECT current_contact(:'rob') = pg_temp.c('mkt', 'r') AS still_rob, pg_temp.c('mkt', 'r') = :'rob' AS id_kept;
SELECT first_name FROM directory WHERE id = :'rob';
-- with nobody else to carry it, the old id leads nowhere, and its contact is gone
SELECT ingest('phone', 'solo', '{"first_name": "Sol", "last_name": "Ono"}', '2026-01-01') > 0 AS ok;
SELECT process();
SELECT pg_temp.c('phone', 'solo') AS sol \gset
SELECT ingest('phone', 'solo', NULL, '2026-02-01', 'delete') > 0 AS ok;
SELECT ingest('phone', 'solo', '{"first_name": "Tom", "last_name": "Uhl"}', '2026-03-02', created => '2026-03-01') > 0 AS ok;
SELECT process();
SELECT current_contact(:'sol') IS NULL AS leads_nowhere, pg_temp.c('phone', 'solo') <> :'sol' AS new_id;
SELECT operation FROM changes() WHERE id = :'sol';
SELECT set_policy('note', 'source_priority', '{crm}');
SELECT process();
SELECT * FROM verify();

RESET search_path;
SET contactsync.tenant = 'default';
SELECT contactsync.drop_tenant('identity', purge => true);
DROP ROLE contactsync_test_identity;
