-- Who is who: evidence by the behaviour of keys, and what it cannot settle.
CREATE ROLE contactsync_test_identity;
GRANT contactsync_app, contactsync_admin TO contactsync_test_identity;
SET contactsync.tenant = 'default';
SELECT contactsync.add_tenant('identity', 'contactsync_test_identity');
SET contactsync.tenant = 'identity';
SET search_path = contactsync, public;
SET TimeZone = 'UTC';
SELECT count(add_source(s, 'canonical')) FROM unnest('{crm,mkt,phone}'::text[]) s;
CREATE FUNCTION pg_temp.say(source text, id text, first text, last text, rest jsonb, version timestamptz = '2026-01-01') RETURNS void LANGUAGE sql AS
$$SELECT contactsync.ingest(source, id, jsonb_strip_nulls(jsonb_build_object('first_name', first, 'last_name', last)) || rest, version)$$;
CREATE VIEW pg_temp.people AS
SELECT string_agg(r.source || '/' || r.source_id, ' ' ORDER BY r.source, r.source_id) AS records FROM contactsync.records r
WHERE r.tenant_id = contactsync.current_tenant() GROUP BY r.contact_id;
CREATE VIEW pg_temp.doubts AS
SELECT least(a, b) AS one, greatest(a, b) AS other, reason, score, key FROM (
	SELECT (SELECT string_agg(r.source || '/' || r.source_id, ' ' ORDER BY r.source, r.source_id) FROM contactsync.records r WHERE r.contact_id = d.contact_id) AS a,
		(SELECT string_agg(r.source || '/' || r.source_id, ' ' ORDER BY r.source, r.source_id) FROM contactsync.records r WHERE r.contact_id = d.other_id) AS b,
		d.reason, d.score, d.key FROM contactsync.duplicates d) x;

-- a mail shared by two people: it links neither them, nor to either who has no name
SELECT pg_temp.say('crm', 'ann', 'Ann', 'Lee', '{"emails": ["lee@home.org"]}');
SELECT pg_temp.say('mkt', 'bob', 'Bob', 'Lee', '{"emails": ["lee@home.org"]}');
SELECT pg_temp.say('phone', 'who', NULL, NULL, '{"emails": ["lee@home.org"]}');
SELECT process();
SELECT * FROM pg_temp.people ORDER BY 1;
SELECT * FROM pg_temp.doubts ORDER BY 1, 2;
-- where names agree, it does
SELECT pg_temp.say('phone', 'who', 'B.', 'Lee', '{"emails": ["lee@home.org"]}', '2026-01-02');
SELECT process();
SELECT * FROM pg_temp.people ORDER BY 1;

-- case, IDN and E.164 variants are one key
SELECT pg_temp.say('crm', 'v', 'Vera', 'Müller', '{"emails": ["Vera@BÜCHER.example"]}');
SELECT pg_temp.say('mkt', 'v', 'VERA', 'MÜLLER', '{"emails": ["vera@xn--bcher-kva.example"]}');
SELECT pg_temp.say('crm', 'w', 'Will', 'Hunt', '{"phones": ["+1 (650) 253-0000"]}');
SELECT pg_temp.say('mkt', 'w', 'W.', 'Hunt', '{"phones": ["+16502530000"]}');
SELECT process();
SELECT * FROM pg_temp.people WHERE records ~ '/[vw]' ORDER BY 1;

-- a landline links only those whose names agree; a mobile whoever has no other name
SELECT pg_temp.say('crm', 'l', 'Lea', 'Ott', '{"phones": [{"number": "+16502530001", "type": "work"}, {"number": "+16502530002", "type": "mobile"}]}');
SELECT pg_temp.say('mkt', 'l', NULL, NULL, '{"phones": [{"number": "+16502530001", "type": "work"}]}');
SELECT pg_temp.say('phone', 'l', NULL, NULL, '{"phones": ["+16502530002"]}');
SELECT process();
SELECT * FROM pg_temp.people WHERE records ~ '/l' ORDER BY 1;
SELECT * FROM pg_temp.doubts WHERE one ~ '/l' ORDER BY 1, 2;

-- names alone never link; nor does what stands for nobody
SELECT pg_temp.say('crm', 'n', 'Nina', 'Berg', '{"emails": ["noreply@shop.org", "n1@x.org"]}');
SELECT pg_temp.say('mkt', 'n', 'Nina', 'Berg', '{"emails": ["noreply@shop.org", "n2@x.org"]}');
SELECT process();
SELECT * FROM pg_temp.people WHERE records ~ '/n' ORDER BY 1;

-- two of one source are two people to it
SELECT pg_temp.say('crm', 's1', 'Sue', 'Day', '{"emails": ["sue@x.org"]}');
SELECT pg_temp.say('crm', 's2', 'Sue', 'Day', '{"emails": ["sue@x.org"]}', '2026-01-02');
SELECT process();
SELECT * FROM pg_temp.people WHERE records ~ '/s' ORDER BY 1;
SELECT * FROM pg_temp.doubts WHERE one ~ '/s';

-- a mail turns generic: what it had linked comes apart, and what it kept apart may link
SELECT pg_temp.say('crm', 'g1', 'Gus', 'Ray', '{"emails": ["desk@x.org"]}');
SELECT pg_temp.say('mkt', 'g1', 'Gus', 'Ray', '{"emails": ["desk@x.org"]}');
SELECT pg_temp.say('phone', 'g1', NULL, NULL, '{"emails": ["desk@x.org", "gus@x.org"]}');
SELECT pg_temp.say('crm', 'h' || i, 'Person', 'No' || i, '{"emails": ["desk@x.org"]}') FROM generate_series(1, 7) i;
SELECT process();
SELECT * FROM pg_temp.people WHERE records ~ '/g' ORDER BY 1;
SELECT count(*) FROM pg_temp.doubts WHERE key = 'email:desk@x.org';
SELECT pg_temp.say('crm', 'h8', 'Person', 'No8', '{"emails": ["desk@x.org"]}');
SELECT process();
SELECT * FROM pg_temp.people WHERE records ~ '/g' ORDER BY 1;
SELECT count(*) FROM pg_temp.doubts WHERE key = 'email:desk@x.org';
SELECT key FROM generic_keys ORDER BY 1;
SELECT event, count(*) FROM contact_events GROUP BY 1 ORDER BY 1;
-- every id leads somewhere
SELECT count(*) FILTER (WHERE current_contact(id) IS NULL) AS astray FROM contact_aliases;
SELECT current_contact('00000000-0000-0000-0000-000000000000');

-- exclusive ids, declared for all sources or for one: they link by themselves, and keep apart
SELECT pg_temp.say('crm', 'x1', 'Xenia', 'Kuhn', '{"emails": ["x@x.org"], "metadata": {"employee_id": "E-1", "login": "n/a"}}');
SELECT pg_temp.say('mkt', 'x1', 'Xenia', 'Kuhn', '{"emails": ["x@x.org"], "metadata": {"employee_id": "E-2"}}');
SELECT pg_temp.say('phone', 'x1', NULL, NULL, '{"metadata": {"employee_id": "e-1"}}');
SELECT process();
SELECT * FROM pg_temp.people WHERE records ~ '/x' ORDER BY 1;
SELECT set_identity_policy('{"metadata.employee_id": "exclusive", "metadata.login": "exclusive"}');
SELECT process();
SELECT * FROM pg_temp.people WHERE records ~ '/x' ORDER BY 1;
SELECT * FROM pg_temp.doubts WHERE one ~ '/x';
SELECT key, count(*) FROM identities WHERE key ~ '^id:' GROUP BY 1 ORDER BY 1;
SELECT set_identity_policy('{"metadata.employee_id": null}');
SELECT process();
SELECT * FROM pg_temp.people WHERE records ~ '/x' ORDER BY 1;
SELECT current_identity_policy();
-- thresholds are part of it
SELECT set_identity_policy('{"generic_names": 20}');
SELECT process();
SELECT * FROM pg_temp.people WHERE records ~ '/g' ORDER BY 1;
SELECT set_identity_policy('{"generic_names": null}');
SELECT process();
SELECT * FROM pg_temp.people WHERE records ~ '/g' ORDER BY 1;
SELECT * FROM verify();
\set VERBOSITY terse
SELECT set_identity_policy('{"generic_names": 0}');
SELECT set_identity_policy('{"emails": "exclusive"}');
SELECT set_identity_policy(NULL);
SELECT add_source('odd', 'canonical', '{"identity": {"emails": "exclusive"}}');
\set VERBOSITY default
-- a source that may hold a person more than once, and has ids of its own
SELECT add_source('hr', 'canonical', '{"duplicates": true, "identity": {"metadata.no": "exclusive"}}') > 0 AS ok;
SELECT pg_temp.say('hr', 'd1', 'Dora', 'Fink', '{"metadata": {"no": 7}, "emails": ["dora@x.org"]}');
SELECT pg_temp.say('hr', 'd2', 'Dora', 'Fink', '{"metadata": {"no": 7}}');
SELECT pg_temp.say('crm', 'd3', 'Dora', 'Fink', '{"metadata": {"no": 8}, "emails": ["dora@x.org"]}');
SELECT process();
SELECT * FROM pg_temp.people WHERE records ~ '/d[123]' ORDER BY 1;

RESET search_path;
SET contactsync.tenant = 'default';
SELECT contactsync.drop_tenant('identity', purge => true);
DROP ROLE contactsync_test_identity;
