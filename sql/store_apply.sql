-- From events to contacts: versions, coverage, deletes, identity, rules, review, audit.
SET search_path = contactsync, public;
SET TimeZone = 'UTC';
-- messages name conflicts by their numbers
ALTER SEQUENCE contactsync.conflicts_id_seq RESTART;

SELECT add_source('crm', 'canonical', '{"class": "crm"}') = add_source('crm', 'canonical', '{"class": "crm"}') AS idempotent;
SELECT add_source('mkt', 'canonical') > 0 AS added, add_source('phone', 'canonical', '{"class": "device"}') > 0 AS added;

-- a snapshot that repeats an old phone is not newer news
SELECT ingest('crm', 'c1', '{"first_name": "Ann", "last_name": "Lee", "emails": ["ann@x.org"], "note": "111"}', '2026-01-05') > 0 AS ok;
SELECT ingest('mkt', 'm1', '{"first_name": "Ann", "last_name": "Lee", "emails": ["ANN@X.ORG"], "note": "111"}', '2026-01-10') > 0 AS ok;
SELECT ingest('crm', 'c1', '{"first_name": "Ann", "last_name": "Lee", "emails": ["ann@x.org"], "note": "222"}', '2026-01-20') > 0 AS ok;
SELECT ingest('mkt', 'm1', '{"first_name": "Anna", "last_name": "Lee", "emails": ["ANN@X.ORG"], "note": "111"}', '2026-01-30') > 0 AS ok;
SELECT process();
SELECT first_name, note, sources FROM directory;
SELECT field, rank, value, source, changed_at AT TIME ZONE 'UTC' AS changed_at, rule, verdict, claim, estimate
FROM explain((SELECT id FROM directory), 'note');

-- duplicates change nothing; neither do they under another receipt
SELECT version AS before FROM directory \gset
SELECT ingest('crm', 'c1', '{"first_name": "Ann", "last_name": "Lee", "emails": ["ann@x.org"], "note": "222"}', '2026-01-20') > 0 AS ok;
SELECT process();
SELECT version = :before AS unchanged FROM directory;
SELECT count(*) FROM observations;
SELECT ingest('crm', 'c9', '{}', '2026-01-01', idempotency_key => 'k1') = ingest('crm', 'c9', '{"note": "x"}', '2026-01-02', idempotency_key => 'k1') AS same_event;

-- late B@2 after A@1, A@3: A changed at 3
SELECT ingest('phone', 'l', '{"nickname": "A"}', '2026-01-01', 'patch') > 0 AS ok;
SELECT ingest('phone', 'l', '{"nickname": "A"}', '2026-01-03', 'patch') > 0 AS ok;
SELECT process();
SELECT changed_at AT TIME ZONE 'UTC' AS changed_at FROM explain((SELECT contact_id FROM records WHERE source_id = 'l'), 'nickname');
SELECT ingest('phone', 'l', '{"nickname": "B"}', '2026-01-02', 'patch') > 0 AS ok;
SELECT process();
SELECT value, changed_at AT TIME ZONE 'UTC' AS changed_at FROM explain((SELECT contact_id FROM records WHERE source_id = 'l'), 'nickname');

-- absent, null and coverage: a patch covers what it lists, a partial snapshot what it says
SELECT ingest('phone', 'p', '{"first_name": "Pat", "title": "CEO", "note": "n", "tags": ["a", "b"], "metadata": {"x": 1, "y": 2}}', '2026-02-01') > 0 AS ok;
SELECT ingest('phone', 'p', '{"note": null, "tags": {"add": ["c"], "remove": ["A"]}, "metadata": {"x": null}}', '2026-02-02', 'patch') > 0 AS ok;
SELECT ingest('phone', 'p', '{"title": "CFO"}', '2026-02-03', coverage => '{title}') > 0 AS ok;
SELECT process();
SELECT first_name, title, note, tags, metadata FROM directory WHERE source_id = 'p';
SELECT ingest('phone', 'p', '{"first_name": "Pat"}', '2026-02-04') > 0 AS ok;
SELECT process();
SELECT first_name, title, note, tags, metadata FROM directory WHERE source_id = 'p';

-- delete, late update, undelete, fresh start
SELECT ingest('phone', 'd', '{"nickname": "Dee", "note": "old"}', '2026-03-01') > 0 AS ok;
SELECT ingest('phone', 'd', NULL, '2026-03-10', 'delete') > 0 AS ok;
SELECT ingest('phone', 'd', '{"nickname": "Late"}', '2026-03-05') > 0 AS ok;
SELECT ingest('phone', 'd', '{"nickname": "Same"}', '2026-03-10') > 0 AS ok;
SELECT process();
SELECT alive, zombie FROM records WHERE source_id = 'd';
SELECT count(*) FROM directory WHERE source_id = 'd';
SELECT ingest('phone', 'd', '{"nickname": "Zombie"}', '2026-03-11', 'patch') > 0 AS ok;
SELECT process();
SELECT alive, zombie FROM records WHERE source_id = 'd';
SELECT ingest('phone', 'd', NULL, '2026-03-12', 'undelete') > 0 AS ok;
SELECT process();
SELECT nickname, note FROM directory WHERE source_id = 'd';
SELECT ingest('phone', 'd', NULL, '2026-03-20', 'delete') > 0 AS ok;
SELECT ingest('phone', 'd', '{"nickname": "New"}', '2026-03-22', created => '2026-03-21') > 0 AS ok;
SELECT process();
SELECT nickname, note FROM directory WHERE source_id = 'd';

-- a clock ten years ahead does not win for ever
SELECT ingest('phone', 'f', '{"note": "from the future"}', now() + interval '10 years') > 0 AS ok;
SELECT process();
SELECT version > now() + interval '9 years' AS raw, effective = received_at AS clamped FROM observations
WHERE record_id = (SELECT id FROM records WHERE source_id = 'f');
SELECT ingest('phone', 'f', '{"note": "a second later"}', clock_timestamp() + interval '1 second') > 0 AS ok;
SELECT process();
SELECT note FROM directory WHERE source_id = 'f';

-- identity: a shared mail with disagreeing names does not link, an initial agrees
SELECT ingest('crm', 'i1', '{"first_name": "Bob", "last_name": "Fox", "emails": ["info@fox.org"]}', '2026-01-01') > 0 AS ok;
SELECT ingest('mkt', 'i2', '{"first_name": "Cleo", "last_name": "Ray", "emails": ["info@fox.org"]}', '2026-01-01') > 0 AS ok;
SELECT ingest('phone', 'i3', '{"first_name": "B.", "last_name": "FOX", "emails": ["info@fox.org"]}', '2026-01-01') > 0 AS ok;
SELECT process();
SELECT first_name, last_name, sources FROM directory WHERE emails @> '[{"address": "info@fox.org"}]' ORDER BY 1;
-- a late bridge: two contacts become one, and both ids lead to it
SELECT ingest('crm', 'b1', '{"last_name": "Roe", "emails": ["roe@a.org"]}', '2026-01-01') > 0 AS ok;
SELECT ingest('mkt', 'b2', '{"last_name": "Roe", "emails": ["roe@b.org"]}', '2026-01-01') > 0 AS ok;
SELECT process();
SELECT count(*) FROM directory WHERE last_name = 'Roe';
SELECT contact_id AS second FROM records WHERE source_id = 'b2' \gset
SELECT ingest('phone', 'b3', '{"last_name": "Roe", "emails": ["roe@a.org", "roe@b.org"]}', '2026-01-02') > 0 AS ok;
SELECT process();
SELECT sources FROM directory WHERE last_name = 'Roe';
SELECT count(DISTINCT source) AS sources_explained FROM explain(:'second', 'last_name');
SELECT count(*) AS found FROM find('ROE@b.org') f, find('b2') g, find('roe@a.org') h WHERE f = g AND g = h;
SELECT operation, changed -> 'last_name' AS last_name FROM audit_log WHERE row_key = :'second' ORDER BY id;

-- rules
SELECT set_policy('title', 'source_priority', '{crm,device}');
SELECT set_policy('metadata.billing_contact', 'manual_review');
SELECT ingest('crm', 'r1', '{"last_name": "Pol", "emails": ["pol@x.org"], "company": "Acme", "title": "CTO", "metadata": {"billing_contact": "yes"}}', '2026-01-01', 'patch') > 0 AS ok;
SELECT ingest('phone', 'r2', '{"last_name": "Pol", "emails": ["pol@x.org"], "company": "Home", "department": "Kitchen", "phones": ["+16502530000"], "metadata": {"billing_contact": "yes"}}', '2026-02-01', 'patch') > 0 AS ok;
SELECT process();
SELECT company, department, title, metadata, open_conflicts FROM directory WHERE last_name = 'Pol';
SELECT unset_policy('company');
SELECT process();
SELECT company, department, title FROM directory WHERE last_name = 'Pol';
-- disagreement: the established value stays, and a conflict opens
SELECT ingest('phone', 'r2', '{"metadata": {"billing_contact": "no"}}', '2026-03-01', 'patch') > 0 AS ok;
SELECT process();
SELECT metadata, open_conflicts FROM directory WHERE last_name = 'Pol';
SELECT id AS conflict, seen FROM conflicts WHERE state = 'open' \gset
SELECT c ->> 'candidate' AS candidate, c -> 'value' AS value, c ->> 'source' AS source
FROM conflicts, jsonb_array_elements(candidates) c WHERE id = :conflict;
\set VERBOSITY terse
SELECT resolve_conflict(:conflict);
SELECT resolve_conflict(:conflict, 9);
SELECT resolve_conflict(:conflict, 1, seen => 'something else');
SELECT resolve_conflict(:conflict, value => '{"a": [1]}', candidate => 1);
SELECT resolve_conflict(0, 1);
\set VERBOSITY default
SELECT resolve_conflict(:conflict, 1, note => 'asked her', seen => :'seen');
SELECT metadata, open_conflicts FROM directory WHERE last_name = 'Pol';
SELECT state FROM conflicts WHERE id = :conflict;
-- what was decided on stays decided; new evidence re-opens
SELECT ingest('crm', 'r1', '{"note": "x"}', '2026-03-02', 'patch') > 0 AS ok;
SELECT process();
SELECT metadata, open_conflicts FROM directory WHERE last_name = 'Pol';
SELECT ingest('crm', 'r1', '{"metadata": {"billing_contact": "maybe"}}', '2026-03-03', 'patch') > 0 AS ok;
SELECT process();
SELECT metadata, open_conflicts FROM directory WHERE last_name = 'Pol';
SELECT cause, operation, changed -> 'metadata' AS metadata, session_role = session_user AS who
FROM audit_log WHERE cause = 'decision';
SELECT kind, field, element, value, chosen, note FROM decisions;

-- bad input: arguments raise, payloads stay in the inbox with their reason
\set VERBOSITY terse
SELECT ingest('nobody', 'x', '{}', now());
SELECT ingest('crm', NULL, '{}', now());
SELECT ingest('crm', 'x', '{}', now(), 'upsert');
SELECT ingest('crm', 'x', '{}', 'infinity');
SELECT ingest('crm', 'x', '{}', now(), coverage => '{shoe}');
SELECT ingest('crm', 'x', jsonb_build_object('note', string_agg(md5(i::text), '')), now()) FROM generate_series(1, 40000) i;
SELECT ingest_batch('crm', '{}');
SELECT ingest_batch('crm', '[{"source_id": "x", "shoe": 1}]');
SELECT ingest_batch('crm', '[{"source_id": "ok", "payload": {}, "version": "2026-01-01"}, {"source_id": "x", "payload": {}}]');
SELECT add_source('s', 'nosuch');
SELECT add_source('s', 'canonical', '{"shoe": 1}');
SELECT add_source('crm', 'canonical', '{}');
SELECT set_policy('title', 'coin_toss');
SELECT set_policy('title', 'union');
SELECT set_policy('shoe', 'last_write_wins');
SELECT set_policy('emails', 'manual_review');
SELECT set_policy('title', 'source_priority');
SELECT explain(gen_random_uuid());
SELECT process(-1);
\set VERBOSITY default
SELECT array_length(ingest_batch('crm', '[{"source_id": "e1", "payload": {"emails": 5}, "version": "2026-01-01"},
	{"source_id": "e2", "payload": {"first_name": "Fine"}, "version": "2026-01-01"},
	{"source_id": "e3", "payload": null, "version": "2026-01-01"},
	{"source_id": "e4", "payload": {"title": "x", "note": "y"}, "version": "2026-01-01", "coverage": ["title"]}]'), 1);
SELECT process();
SELECT source_id, error_code, error FROM inbox ORDER BY id;
SELECT first_name FROM directory WHERE source_id = 'e2';

-- an application can do all this, and reach nothing else
CREATE ROLE cs_app IN ROLE contactsync_app;
SET ROLE cs_app;
SELECT ingest('crm', 'app1', '{"first_name": "App"}', '2026-01-01') > 0 AS ok;
SELECT process();
SELECT first_name, modified_by FROM directory WHERE source_id = 'app1';
\set VERBOSITY terse
SELECT contactsync._ingest('crm', 'x', '{}', now(), 'snapshot', 0, NULL, NULL, NULL);
SELECT contactsync._resolve_contacts('{}', 'x', 1);
SELECT set_policy('title', 'last_write_wins');
SELECT add_source('x', 'canonical');
SELECT count(*) FROM contactsync.audit_log;
\set VERBOSITY default
RESET ROLE;
SELECT session_role = session_user AS session, "current_role" FROM audit_log ORDER BY id DESC LIMIT 1;

DROP ROLE cs_app;
