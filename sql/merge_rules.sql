-- Every rule on every kind of cell, against claims that tell the rules apart.  One
-- transaction, rolled back.
BEGIN;
TRUNCATE contactsync.sources, contactsync.inbox, contactsync.records, contactsync.observations, contactsync.contacts,
	contactsync.identities, contactsync.contact_aliases, contactsync.conflicts, contactsync.decisions, contactsync.policies;
SET search_path = contactsync, public;
SET TimeZone = 'UTC';
SET client_min_messages = warning;

SELECT count(add_source(s, 'canonical', jsonb_build_object('class', c)))
FROM (VALUES ('crm', 'office'), ('erp', 'office'), ('mkt', 'office'), ('phone', 'device')) v (s, c);
CREATE FUNCTION said(source text, payload jsonb, day integer, kind text DEFAULT 'patch', created integer DEFAULT NULL)
	RETURNS void LANGUAGE sql AS $$
	SELECT contactsync.ingest(source, 'r', payload || '{"emails": {"add": ["a@x.org"]}}', '2026-01-01'::timestamptz + day * interval '1 day', kind,
		created => '2026-01-01'::timestamptz + created * interval '1 day')
$$;
CREATE FUNCTION snapshot(source text, payload jsonb, day integer, created integer DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
	SELECT contactsync.ingest(source, 'r', payload || '{"emails": ["a@x.org"]}', '2026-01-01'::timestamptz + day * interval '1 day', 'snapshot',
		created => '2026-01-01'::timestamptz + created * interval '1 day')
$$;
CREATE PROCEDURE forget() LANGUAGE sql AS $$
	TRUNCATE contactsync.inbox, contactsync.records, contactsync.observations, contactsync.contacts, contactsync.identities,
		contactsync.contact_aliases, contactsync.conflicts, contactsync.decisions, contactsync.policies
$$;
-- what each rule makes of a field, set on a target
CREATE FUNCTION by_rule(target text, shown text, rules text[] DEFAULT '{last_write_wins,oldest,most_frequent,verified_first,most_complete}')
	RETURNS TABLE (rule text, value text) LANGUAGE plpgsql AS $$
BEGIN
	FOREACH rule IN ARRAY rules LOOP
		PERFORM contactsync.set_policy(target, rule), contactsync.process();
		EXECUTE pg_catalog.format('SELECT (%s)::text FROM contactsync.directory', shown) INTO value;
		RETURN NEXT;
	END LOOP;
	FOREACH rule IN ARRAY '{mkt,office,phone}'::text[] LOOP
		PERFORM contactsync.set_policy(target, 'source_priority', ARRAY[rule]), contactsync.process();
		EXECUTE pg_catalog.format('SELECT (%s)::text FROM contactsync.directory', shown) INTO value;
		rule := 'source_priority ' || rule;
		RETURN NEXT;
	END LOOP;
	PERFORM contactsync.unset_policy(target), contactsync.process();
END
$$;

-- a single value
SELECT said('crm', '{"note": "most"}', 1), said('mkt', '{"note": "first"}', 0), said('erp', '{"note": "most"}', 2), said('phone', '{"note": "last"}', 3);
SELECT process();
SELECT * FROM by_rule('note', 'note');
SELECT set_policy('note', 'most_frequent', '{phone,mkt}', '{"only": true}'), process();
SELECT rank, source, verdict FROM explain((SELECT id FROM directory), 'note');
CALL forget();

-- a metadata key, and all of them
SELECT said('crm', '{"metadata": {"k": 1, "j": "c"}}', 1), said('mkt', '{"metadata": {"k": 2, "j": "m"}}', 0), said('erp', '{"metadata": {"k": 1}}', 2),
	said('phone', '{"metadata": {"k": 3, "j": "c"}}', 3);
SELECT process();
SELECT * FROM by_rule('metadata.k', $$metadata ->> 'k'$$);
SELECT * FROM by_rule('metadata', 'metadata');
SELECT set_policy('metadata', 'manual_review'), process();
SELECT field, element, jsonb_array_length(candidates) FROM conflicts WHERE state = 'open' ORDER BY 2;
CALL forget();

-- a group wins whole; of those that agree, the one that says less has most to back it
SELECT said('crm', '{"company": "Acme", "title": "CTO", "department": "IT"}', 1), said('mkt', '{"company": "Zap"}', 0), said('erp', '{"company": "Acme"}', 2),
	said('phone', '{"company": "Home", "title": "Dad"}', 3);
SELECT process();
SELECT * FROM by_rule('job', $$concat_ws('/', company, department, title)$$);
CALL forget();

-- a list as a whole
SELECT said('crm', '{"phones": ["+16502530001"], "tags": ["b", "a"]}', 1), said('mkt', '{"phones": ["+16502530002"], "tags": ["m"]}', 0),
	said('erp', '{"phones": [{"number": "+16502530001", "type": "work", "verified": true}], "tags": ["a", "b"]}', 2),
	said('phone', '{"phones": ["+16502530003"], "tags": ["x", "y", "z"]}', 3);
SELECT process();
SELECT * FROM by_rule('phones', $$jsonb_path_query_array(phones, '$[*].number')$$, '{union,last_write_wins,oldest,most_frequent,verified_first,most_complete}');
SELECT * FROM by_rule('tags', 'tags', '{union,last_write_wins,oldest,most_frequent,verified_first,most_complete}');
CALL forget();

-- which element is primary
SELECT said('crm', '{"phones": [{"number": "+16502530001", "primary": true}]}', 1), said('mkt', '{"phones": [{"number": "+16502530002", "primary": true}]}', 0),
	said('erp', '{"phones": [{"number": "+16502530001", "primary": true}]}', 2),
	said('phone', '{"phones": [{"number": "+16502530003", "primary": true}, {"number": "+16502530004", "verified": true}]}', 3);
SELECT process();
SELECT * FROM by_rule('phones.primary', $$jsonb_path_query_first(phones, '$[*] ? (@.primary == true).number') #>> '{}'$$);
SELECT said('mkt', '{"phones": {"add": [{"number": "+16502530002", "type": "home", "primary": true}]}}', 4), process();
SELECT set_policy('phones.primary', 'most_complete'), process();
SELECT jsonb_path_query_first(phones, '$[*] ? (@.primary == true)') FROM directory;
-- nobody says: verified, oldest, key
SELECT said(s, '{"phones": null}', 9) FROM unnest('{crm,mkt,erp,phone}'::text[]) s;
SELECT said('crm', '{"phones": ["+16502530001"]}', 11), said('mkt', '{"phones": ["+16502530002"]}', 10), said('erp', '{"phones": ["+16502530003"]}', 10), process();
SELECT jsonb_path_query_first(phones, '$[*] ? (@.primary == true).number') FROM directory;
SELECT said('phone', '{"phones": [{"number": "+16502530004", "verified": true}]}', 12), process();
SELECT jsonb_path_query_first(phones, '$[*] ? (@.primary == true).number') FROM directory;
CALL forget();

-- an address, and a phone with its type and extension, win whole from the latest that has them
SELECT said('crm', '{"addresses": [{"street": "1 Main St", "city": "Springfield", "postal_code": "1", "country": "US", "type": "home"}], "phones": [{"number": "+16502530001", "extension": "7", "type": "work"}]}', 1),
	said('mkt', '{"addresses": [{"street": "1 MAIN ST", "city": "SPRINGFIELD", "postal_code": "1", "country": "US"}], "phones": [{"number": "(650) 253-0001 x7"}, "+16502530001"]}', 2);
SELECT process();
SELECT jsonb_pretty(addresses) AS addresses, phones FROM directory;
CALL forget();

-- the oldest: nothing of unknown age, and where all are, the least version
SELECT set_policy('note', 'oldest');
SELECT snapshot('crm', '{"note": "crm"}', 5), snapshot('mkt', '{"note": "mkt"}', 3), process();
SELECT note FROM directory;
SELECT said('phone', '{"note": "phone"}', 2), process();
SELECT note FROM directory;
SELECT snapshot('erp', '{"note": "erp"}', 9, 1), process();
SELECT note FROM directory;
CALL forget();

-- how many independent sources say so
SELECT said('crm', '{"note": "x", "company": "Acme", "title": "CTO", "tags": ["a", "b"]}', 1), said('mkt', '{"note": "x", "company": "Acme", "tags": ["A"]}', 2),
	said('phone', '{"note": "y", "tags": ["b"]}', 3), said('erp', '{"note": "x"}', 4), said('erp', '{"note": null}', 5), process();
SELECT field, value, source, verdict, support FROM explain((SELECT id FROM directory)) WHERE field !~ 'emails' ORDER BY field COLLATE "C", rank;
CALL forget();

-- a group of one's own wins whole, and a decision on what was part of another counts as far as it goes
SELECT set_policy('identity', 'source_priority', '{crm}', '{"members": ["nickname", "title", "birthday"]}');
SELECT said('crm', '{"nickname": "Al", "company": "Acme"}', 1), said('mkt', '{"nickname": "Bo", "title": "CTO", "birthday": "1990-01-01"}', 2),
	said('phone', '{"title": "CEO", "company": "Home"}', 3), said('erp', '{"nickname": "Al", "birthday": "1980-01-01"}', 0), process();
SELECT nickname, title, birthday, company FROM directory;
SELECT field, value, source, rule, verdict FROM explain((SELECT id FROM directory)) WHERE field IN ('nickname', 'title', 'birthday', 'company') ORDER BY field, rank;
SELECT override_field((SELECT id FROM directory), 'identity', '{"nickname": "Cy", "birthday": "1970-01-01"}') > 0 AS decided;
SELECT nickname, title, birthday, company FROM directory;
SELECT field, value FROM overrides;
SELECT unset_policy('identity'), process();
SELECT nickname, title, birthday, company FROM directory;
SELECT set_policy('identity', 'manual_review', options => '{"members": ["title", "nickname"]}'), process();
SELECT nickname, title, birthday, company FROM directory;
SELECT field, element, state, jsonb_array_length(candidates) AS candidates FROM conflicts WHERE state <> 'superseded';
SELECT resolve_conflict(id, 1) FROM conflicts WHERE state = 'open';
SELECT nickname, title, birthday, company, open_conflicts FROM directory;
SELECT * FROM verify();
CALL forget();

-- what fills gaps is chosen among itself: two agree on the title, and whom the winner agrees with has no say
SELECT set_policy('job', 'most_frequent');
SELECT said('crm', '{"company": "Acme", "department": "IT"}', 1), said('mkt', '{"title": "CEO", "department": "IT"}', 9),
	said('phone', '{"title": "CTO"}', 2), said('erp', '{"title": "CTO"}', 3), process();
SELECT company, department, title FROM directory;
SELECT field, value, source, verdict, support FROM explain((SELECT id FROM directory), 'title') ORDER BY rank;
SELECT unset_policy('job');
CALL forget();

ROLLBACK;
