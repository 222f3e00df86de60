-- The semantics, case by case: what the contact is, and that a rebuild gives the same.
\set VERBOSITY terse
SET client_min_messages = warning;
BEGIN;
SET LOCAL search_path = contactsync, public, pg_catalog;
SET LOCAL TimeZone = 'UTC';
CREATE ROLE cs_semantics;
SELECT add_tenant('semantics', 'cs_semantics');
SET LOCAL contactsync.tenant = 'semantics';
SELECT count(add_source(s, 'canonical', jsonb_build_object('class', c))) FROM (VALUES ('crm', 'crm'), ('mkt', 'crm'), ('phone', 'device'), ('hook', 'crm')) v (s, c);
CREATE PROCEDURE pg_temp.said(source text, id text, day numeric, payload jsonb, kind text DEFAULT 'snapshot', coverage text[] DEFAULT NULL, created numeric DEFAULT NULL, seq bigint DEFAULT 0)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM contactsync.ingest(source, id, payload, '2026-01-01'::timestamptz + day * interval '1 day', kind, seq,
		coverage => coverage, created => '2026-01-01'::timestamptz + created * interval '1 day');
	PERFORM contactsync.process();
END $$;
-- the contact of a record, without provenance
CREATE FUNCTION pg_temp.now(source text, id text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT d.contact::jsonb - '_provenance' FROM contactsync.directory d JOIN contactsync.records r ON r.tenant_id = 'semantics' AND r.contact_id = d.id
	WHERE r.source = $1 AND r.source_id = $2
$$;
CREATE FUNCTION pg_temp.sound() RETURNS boolean LANGUAGE sql AS 'SELECT NOT EXISTS (SELECT FROM contactsync.verify())';

-- case: same event twice
CALL pg_temp.said('crm', 'twice', 1, '{"note": "a"}');
CALL pg_temp.said('crm', 'twice', 1, '{"note": "a"}');
SELECT pg_temp.now('crm', 'twice'), (SELECT count(*) FROM observations o JOIN records r ON r.id = o.record_id WHERE r.source_id = 'twice') AS observations,
	(SELECT version FROM directory WHERE source_id = 'twice') AS version, pg_temp.sound();

-- case: shuffled history
CALL pg_temp.said('crm', 'shuffled', 3, '{"note": "c", "title": "T"}');
CALL pg_temp.said('crm', 'shuffled', 1, '{"note": "a"}');
CALL pg_temp.said('crm', 'shuffled', 2, '{"note": "b"}', 'patch');
CALL pg_temp.said('crm', 'ordered', 1, '{"note": "a"}');
CALL pg_temp.said('crm', 'ordered', 2, '{"note": "b"}', 'patch');
CALL pg_temp.said('crm', 'ordered', 3, '{"note": "c", "title": "T"}');
SELECT pg_temp.now('crm', 'shuffled') = pg_temp.now('crm', 'ordered') AS same, contact_identical(a.state, b.state) AS stamps_too, pg_temp.sound()
FROM records a, records b WHERE a.source_id = 'shuffled' AND b.source_id = 'ordered';

-- case: webhook older than poll
CALL pg_temp.said('hook', 'w', 5, '{"note": "polled", "title": "T"}');
CALL pg_temp.said('hook', 'w', 4, '{"note": "webhook"}', 'patch');
SELECT pg_temp.now('hook', 'w'), pg_temp.sound();

-- case: equal seconds (the larger bytes win whole, and that is counted; seq goes before)
CALL pg_temp.said('crm', 'equal', 1, '{"note": "a", "title": "A"}');
CALL pg_temp.said('crm', 'equal', 1, '{"note": "b", "title": "B"}');
SELECT pg_temp.now('crm', 'equal') IN ('{"note": "a", "title": "A"}', '{"note": "b", "title": "B"}') AS whole,
	(SELECT same_version_conflicts FROM records WHERE source_id = 'equal'), pg_temp.sound();
CALL pg_temp.said('crm', 'equal', 1, '{"note": "c"}', seq => 1);
SELECT pg_temp.now('crm', 'equal'), pg_temp.sound();

-- case: full snapshot after partial
CALL pg_temp.said('crm', 'partial', 1, '{"note": "n", "title": "T", "nickname": "N"}');
CALL pg_temp.said('crm', 'partial', 2, '{"title": "U"}', coverage => '{title}');
SELECT pg_temp.now('crm', 'partial'), pg_temp.sound();
CALL pg_temp.said('crm', 'partial', 3, '{"title": "U"}');
SELECT pg_temp.now('crm', 'partial'), pg_temp.sound();

-- case: revoked field permission (a mask that shrinks clears nothing)
CALL pg_temp.said('crm', 'revoked', 1, '{"note": "n", "title": "T"}', coverage => '{note,title,birthday}');
CALL pg_temp.said('crm', 'revoked', 2, '{"title": "U"}', coverage => '{title}');
SELECT pg_temp.now('crm', 'revoked'), (SELECT uncovered FROM records WHERE source_id = 'revoked'), pg_temp.sound();

-- case: partial mail list (a patch's list replaces, add and remove edit)
CALL pg_temp.said('crm', 'mails', 1, '{"emails": ["a@s.org", "b@s.org"]}');
CALL pg_temp.said('crm', 'mails', 2, '{"emails": {"add": ["c@s.org"], "remove": ["a@s.org"]}}', 'patch');
SELECT pg_temp.now('crm', 'mails') -> 'emails' AS emails, pg_temp.sound();
CALL pg_temp.said('crm', 'mails', 3, '{"emails": ["d@s.org"]}', 'patch');
SELECT pg_temp.now('crm', 'mails') -> 'emails' AS emails, pg_temp.sound();

-- case: '' vs null vs absent
CALL pg_temp.said('crm', 'empty', 1, '{"note": "n", "title": "T", "nickname": "N", "company": "C"}');
CALL pg_temp.said('crm', 'empty', 2, '{"note": "", "title": null}', 'patch');
SELECT pg_temp.now('crm', 'empty'), pg_temp.sound();
CALL pg_temp.said('crm', 'empty', 3, '{"nickname": "N"}');
SELECT pg_temp.now('crm', 'empty'), pg_temp.sound();

-- case: delete then late update (older: dead; newer without proof: held)
CALL pg_temp.said('crm', 'gone', 1, '{"note": "n"}');
CALL pg_temp.said('crm', 'gone', 5, NULL, 'delete');
CALL pg_temp.said('crm', 'gone', 4, '{"note": "late"}', 'patch');
SELECT pg_temp.now('crm', 'gone') AS late, zombie, pg_temp.sound() FROM records WHERE source_id = 'gone';
CALL pg_temp.said('crm', 'gone', 6, '{"note": "after"}', 'patch');
SELECT pg_temp.now('crm', 'gone') AS after, zombie, pg_temp.sound() FROM records WHERE source_id = 'gone';

-- case: delete and edit at once (a tie is a delete)
CALL pg_temp.said('crm', 'tie', 1, '{"note": "n"}');
CALL pg_temp.said('crm', 'tie', 2, '{"note": "m"}', 'patch');
CALL pg_temp.said('crm', 'tie', 2, NULL, 'delete');
SELECT pg_temp.now('crm', 'tie') AS tie, pg_temp.sound();

-- case: undelete (bare: what was; with content, or created anew: that)
CALL pg_temp.said('crm', 'gone', 7, NULL, 'undelete');
SELECT pg_temp.now('crm', 'gone'), pg_temp.sound();
CALL pg_temp.said('crm', 'tie', 3, '{"title": "T"}', created => 2.5);
SELECT pg_temp.now('crm', 'tie'), pg_temp.sound();

-- case: case, IDN and E.164 variants (one person, one mail, one number)
CALL pg_temp.said('crm', 'variants', 1, '{"last_name": "Weiß", "emails": ["Ann@BÜCHER.example"], "phones": ["+1 (650) 253-0000"]}');
CALL pg_temp.said('mkt', 'variants', 2, '{"last_name": "WEISS", "emails": ["Ann@xn--bcher-kva.example"], "phones": ["+16502530000"]}');
SELECT jsonb_array_length(d.emails) AS emails, jsonb_array_length(d.phones) AS phones, jsonb_array_length(d.sources) AS sources, pg_temp.sound()
FROM directory d WHERE d.id = (SELECT contact_id FROM records WHERE source = 'crm' AND source_id = 'variants');

-- case: clock ten years ahead (does not win for ever)
SELECT ingest('crm', 'ahead', '{"note": "future"}', now() + interval '10 years') > 0 AS ok, process();
SELECT ingest('crm', 'ahead', '{"note": "present"}', clock_timestamp() + interval '1 second') > 0 AS ok, process();
SELECT pg_temp.now('crm', 'ahead'), pg_temp.sound();

-- case: the CRM and marketing phone (a repeated old value is no news)
SELECT set_policy('phones', 'last_write_wins');
CALL pg_temp.said('crm', 'example', 5, '{"last_name": "Lee", "emails": ["lee@s.org"], "phones": ["+16502530111"]}');
CALL pg_temp.said('mkt', 'example', 10, '{"last_name": "Lee", "emails": ["lee@s.org"], "phones": ["+16502530111"]}');
CALL pg_temp.said('crm', 'example', 20, '{"last_name": "Lee", "emails": ["lee@s.org"], "phones": ["+16502530222"]}');
CALL pg_temp.said('mkt', 'example', 30, '{"last_name": "Lee", "first_name": "Ann", "emails": ["lee@s.org"], "phones": ["+16502530111"]}');
SELECT pg_temp.now('mkt', 'example') -> 'phones' AS phones, pg_temp.now('mkt', 'example') -> 'first_name' AS first_name, pg_temp.sound();

-- case: late B@2 after A@1, A@3: A changed at 3
CALL pg_temp.said('crm', 'late', 1, '{"note": "A"}', 'patch');
CALL pg_temp.said('crm', 'late', 3, '{"note": "A"}', 'patch');
SELECT changed_at FROM explain((SELECT contact_id FROM records WHERE source_id = 'late'), 'note');
CALL pg_temp.said('crm', 'late', 2, '{"note": "B"}', 'patch');
SELECT value, changed_at, pg_temp.sound() FROM explain((SELECT contact_id FROM records WHERE source_id = 'late'), 'note');

-- case: policy change and rebuild
CALL pg_temp.said('crm', 'policy', 5, '{"last_name": "Poe", "emails": ["poe@s.org"], "company": "Acme"}', 'patch');
CALL pg_temp.said('phone', 'policy', 9, '{"last_name": "Poe", "emails": ["poe@s.org"], "company": "Home"}', 'patch');
SELECT pg_temp.now('crm', 'policy') -> 'company' AS company, pg_temp.sound();
SELECT field, current, proposed FROM what_if((current_policy()::jsonb || '{"job": {"rule": "source_priority", "sources": ["crm"]}}')::merge_policy);
SELECT set_policy('job', 'source_priority', '{crm}'), pg_temp.sound();
SELECT field, stored, computed FROM rebuild() WHERE field = 'company';
SELECT count(*) FILTER (WHERE field = 'company') AS repaired FROM rebuild(false);
SELECT pg_temp.now('crm', 'policy') -> 'company' AS company, process(), pg_temp.sound();

-- and in any order
SELECT count(*) AS divergences FROM selftest_convergence(1000, 1);
ROLLBACK;
