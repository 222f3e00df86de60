-- Merges, splits and links by decision: ids, exact unmerge, undo, errors.
CREATE ROLE contactsync_test_identity;
GRANT contactsync_app, contactsync_admin TO contactsync_test_identity;
SELECT contactsync.add_tenant('identity', 'contactsync_test_identity');
SET contactsync.tenant = 'identity';
SET search_path = contactsync, public;
SET TimeZone = 'UTC';
SELECT count(add_source(s, 'canonical')) FROM unnest('{crm,mkt,phone}'::text[]) s;
SELECT ingest('crm', 'a', '{"first_name": "Ann", "last_name": "Lee", "note": "of crm", "emails": ["ann@x.org"]}', '2026-01-01') > 0 AS ok;
SELECT ingest('mkt', 'a', '{"first_name": "Ann", "last_name": "Lee", "title": "CTO", "emails": ["ann@x.org"]}', '2026-01-02') > 0 AS ok;
SELECT ingest('crm', 'b', '{"first_name": "Anna", "last_name": "Roe", "note": "of roe", "emails": ["roe@x.org"]}', '2026-01-03') > 0 AS ok;
SELECT process();
CREATE FUNCTION pg_temp.c(text, text) RETURNS uuid STABLE LANGUAGE sql AS
$$SELECT r.contact_id FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() AND r.source = $1 AND r.source_id = $2$$;
CREATE FUNCTION pg_temp.r(text, text) RETURNS bigint STABLE LANGUAGE sql AS
$$SELECT r.id FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() AND r.source = $1 AND r.source_id = $2$$;
SELECT pg_temp.c('crm', 'a') AS lee, pg_temp.c('crm', 'b') AS roe \gset
CREATE TEMP TABLE before AS SELECT id, contact FROM contacts;

-- merge: the survivor's id stays, though the other is known for longer
SELECT merge_contacts(:'roe', :'lee', 'she married');
SELECT id = :'roe' AS roe, first_name, last_name, note, title, jsonb_array_length(sources) AS sources FROM directory;
SELECT current_contact(:'lee') = :'roe' AS lee_leads_there;
SELECT event, contact_id = :'lee' AS lee, other_id = :'roe' AS roe FROM contact_events;
SELECT cause, cause_id = (SELECT id FROM decisions) AS of_decision, operation, row_key = :'lee' AS lee FROM audit_log WHERE cause = 'decision' ORDER BY operation;
SELECT merge_contacts(:'roe', :'lee');
SELECT merge_contacts(:'lee', :'roe');
-- both of her names are known now: a third record links by either
SELECT ingest('phone', 'a', '{"first_name": "Ann", "last_name": "Lee", "emails": ["roe@x.org"]}', '2026-01-04') > 0 AS ok;
SELECT process();
SELECT jsonb_array_length(sources) AS sources FROM directory;
-- changes of its records
SELECT ingest('crm', 'a', '{"note": "edited"}', '2026-02-01', 'patch') > 0 AS ok;
SELECT ingest('crm', 'a', '{"note": "of crm"}', '2026-02-02', 'patch') > 0 AS ok;
SELECT process();

-- split: what is not listed keeps the id; the other part goes back to its own
SELECT split_contact(:'roe', ARRAY[pg_temp.r('crm', 'a'), pg_temp.r('mkt', 'a')], 'she did not') = :'lee' AS lee;
SELECT id = :'roe' AS roe, first_name, last_name, note, title, jsonb_array_length(sources) AS sources FROM directory ORDER BY 1;
-- the same again
SELECT split_contact(:'roe', ARRAY[pg_temp.r('mkt', 'a'), pg_temp.r('crm', 'a')]) = :'lee' AS lee;
SELECT count(*) FROM decisions;
SELECT kind, contact_id = :'roe' AS roe, cardinality(records) AS records, cardinality(others) AS others, note FROM decisions ORDER BY id;

-- merge, and unmerge: both are what they were to the byte, stamps included
SELECT ingest('phone', 'a', NULL, '2026-01-05', 'delete') > 0 AS ok;
SELECT process();
SELECT merge_contacts(:'lee', :'roe');
SELECT undo((SELECT max(id) FROM decisions)) > 0 AS undone;
SELECT b.id = :'lee' AS lee, contact_identical(b.contact, c.contact) AS identical FROM before b LEFT JOIN contacts c ON c.id = b.id WHERE b.id = :'roe';
TRUNCATE before; INSERT INTO before SELECT id, contact FROM contacts;
SELECT merge_contacts(:'lee', :'roe');
SELECT count(*) FROM directory;
SELECT split_contact(:'lee', ARRAY[pg_temp.r('crm', 'b'), pg_temp.r('phone', 'a')]) = :'roe' AS roe;
SELECT count(*), bool_and(contact_identical(b.contact, c.contact)) AS identical FROM before b JOIN contacts c ON c.id = b.id;

-- the first-known record taken out: its id stays with the rest, and it gets another
SELECT split_contact(:'lee', ARRAY[pg_temp.r('crm', 'a')]) AS new \gset
SELECT pg_temp.c('mkt', 'a') = :'lee' AS rest_keeps, pg_temp.c('crm', 'a') = :'new' AS new FROM (SELECT) x;
SELECT undo((SELECT max(id) FROM decisions WHERE kind = 'split')) > 0 AS undone;
SELECT pg_temp.c('mkt', 'a') = :'lee' AS rest_keeps, pg_temp.c('crm', 'a') = :'lee' AS back, current_contact(:'new') = :'lee' AS new_leads_there FROM (SELECT) x;

-- pairs of records
SELECT unlink_records(pg_temp.r('crm', 'a'), pg_temp.r('mkt', 'a')) = unlink_records(pg_temp.r('mkt', 'a'), pg_temp.r('crm', 'a')) AS once;
SELECT pg_temp.c('mkt', 'a') = pg_temp.c('crm', 'a') AS one;
SELECT count(*) FROM duplicates;
SELECT link_records(pg_temp.r('crm', 'a'), pg_temp.r('mkt', 'a')) > 0 AS ok;
SELECT pg_temp.c('mkt', 'a') = pg_temp.c('crm', 'a') AS one;
-- a must-link beats one live record of a source, and names
SELECT link_records(pg_temp.r('crm', 'a'), pg_temp.r('crm', 'b')) > 0 AS ok;
SELECT pg_temp.c('crm', 'b') = pg_temp.c('crm', 'a') AS one, pg_temp.c('crm', 'a') = :'lee' AS lee;

-- an application's foreign key refers to contact_aliases, of which nothing is ever deleted: merges do not
-- break it, contact_ids leads to the contact, and whoever wants can have the rows follow
GRANT CREATE ON SCHEMA public TO contactsync_test_identity;
SET ROLE contactsync_test_identity;
CREATE TABLE public.orders (no integer PRIMARY KEY, tenant_id text NOT NULL DEFAULT current_tenant(), contact_id uuid NOT NULL,
	FOREIGN KEY (tenant_id, contact_id) REFERENCES contact_aliases (tenant_id, id));
INSERT INTO orders (no, contact_id) VALUES (1, :'lee'), (2, :'roe');
SELECT o.no, i.contact_id = :'lee' AS lee, d.last_name FROM orders o JOIN contact_ids i ON i.id = o.contact_id JOIN directory d ON d.id = i.contact_id ORDER BY 1;
UPDATE orders o SET contact_id = i.contact_id FROM contact_ids i WHERE i.id = o.contact_id AND i.contact_id <> o.contact_id;
SELECT no, contact_id = :'lee' AS lee FROM orders ORDER BY 1;
SELECT unlink_records(pg_temp.r('crm', 'a'), pg_temp.r('crm', 'b')) > 0 AS ok;
SELECT o.no, i.contact_id = :'lee' AS lee FROM orders o JOIN contact_ids i ON i.id = o.contact_id ORDER BY 1;
\set VERBOSITY terse
INSERT INTO orders (no, contact_id) VALUES (3, '00000000-0000-0000-0000-000000000000');
DROP TABLE orders;
RESET ROLE;
REVOKE CREATE ON SCHEMA public FROM contactsync_test_identity;

-- errors
\set VERBOSITY sqlstate
SELECT merge_contacts(:'lee', '00000000-0000-0000-0000-000000000000');
SELECT merge_contacts(NULL, :'lee');
SELECT split_contact('00000000-0000-0000-0000-000000000000', '{1}');
SELECT split_contact(:'lee', '{}');
SELECT split_contact(:'lee', NULL);
SELECT split_contact(:'lee', ARRAY[NULL]::bigint[]);
SELECT split_contact(:'lee', '{0}');
SELECT split_contact(:'lee', (SELECT array_agg(id) FROM records WHERE contact_id = :'lee'));
SELECT link_records(0, pg_temp.r('crm', 'a'));
SELECT link_records(pg_temp.r('crm', 'a'), pg_temp.r('crm', 'a'));
SELECT unlink_records(NULL, pg_temp.r('crm', 'a'));
SET ROLE contactsync_analyst;
SELECT merge_contacts(NULL, NULL);
RESET ROLE;
-- of another tenant, nobody is known
SET contactsync.tenant = 'default';
SELECT merge_contacts(:'lee', :'roe');
SELECT current_contact(:'lee');
SELECT count(*) FROM duplicates;
\set VERBOSITY default

RESET search_path;
SELECT contactsync.drop_tenant('identity', purge => true);
DROP ROLE contactsync_test_identity;
