-- What a source shows because we wrote it there: a derived claim. One transaction, rolled back.
BEGIN;
TRUNCATE contactsync.sources, contactsync.inbox, contactsync.records, contactsync.observations, contactsync.contacts,
	contactsync.identities, contactsync.contact_aliases, contactsync.conflicts, contactsync.decisions, contactsync.policies;
SET search_path = contactsync, public;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SET client_min_messages = warning;
\set SHOW_CONTEXT never

SELECT count(add_source(s, 'canonical')) FROM unnest('{crm,mkt,phone}'::text[]) s;
CREATE FUNCTION day(n integer) RETURNS timestamptz LANGUAGE sql AS $$SELECT '2026-01-01'::timestamptz + n * interval '1 day'$$;
CREATE FUNCTION said(source text, payload jsonb, at integer, kind text DEFAULT 'patch')
	RETURNS void LANGUAGE sql AS $$SELECT contactsync.ingest(source, 'r', payload, day(at), kind)$$;
CREATE FUNCTION wrote(source text, payload jsonb, at integer, origin text) RETURNS void LANGUAGE sql AS $$
	SELECT contactsync._confirm_write(source, 'r', payload, day(at),
		(SELECT jsonb_object_agg(k, jsonb_build_object('source', origin, 'source_id', 'r')) FROM jsonb_object_keys(payload) k))
$$;
CREATE PROCEDURE forget() LANGUAGE sql AS $$
	TRUNCATE contactsync.inbox, contactsync.records, contactsync.observations, contactsync.contacts, contactsync.identities,
		contactsync.contact_aliases, contactsync.conflicts, contactsync.decisions, contactsync.policies
$$;
CREATE TEMP VIEW claims AS SELECT e.field, e.value, e.source, e.changed_at, e.as_of, e.verdict, e.claim
	FROM contactsync.directory d, contactsync.explain(d.id) e
	WHERE e.claim <> 'cleared' AND e.field !~ '^last_name|a@x.org$' ORDER BY e.field, e.rank, e.source;

-- the echo keeps the stamp of its origin, in whatever order it comes: with the stamp of our write, often
SELECT said('phone', '{"last_name": "Lee", "emails": ["a@x.org"], "title": "CTO"}', 1), said('crm', '{"last_name": "Lee", "emails": ["a@x.org"]}', 2);
SELECT said('crm', '{"last_name": "Lee", "emails": ["a@x.org"], "title": "CTO"}', 5, 'snapshot');
SELECT wrote('crm', '{"title": "CTO"}', 5, 'phone');
SELECT process();
SELECT * FROM claims;
SELECT contact_provenance(state) -> 'title' AS title FROM records WHERE source = 'crm';
-- seen again it is what it was
SELECT said('crm', '{"last_name": "Lee", "emails": ["a@x.org"], "title": " CTO "}', 7, 'snapshot');
SELECT process();
SELECT * FROM claims;
-- its origin says something else: there is nothing that the echo could hold against it
SELECT said('phone', '{"title": "CEO"}', 6);
SELECT process();
SELECT * FROM claims;
-- the same again by itself, after something else: now it is the source's own
SELECT said('crm', '{"title": "CFO"}', 8), said('crm', '{"title": "CTO"}', 9);
SELECT process();
SELECT * FROM claims;
SELECT * FROM verify();
CALL forget();

-- an echo dies with its origin; what the source had by itself before we wrote the same is its own
SELECT said('phone', '{"last_name": "Lee", "emails": ["a@x.org"], "title": "CTO", "nickname": "Al"}', 1), said('crm', '{"last_name": "Lee", "emails": ["a@x.org"], "nickname": "Al"}', 2);
SELECT wrote('crm', '{"title": "CTO", "nickname": "Al"}', 5, 'phone');
SELECT process();
SELECT * FROM claims;
SELECT said('phone', NULL, 6, 'delete');
SELECT process();
SELECT * FROM claims;
CALL forget();

-- normalised: mail in other case, a number spelled otherwise, blanks; not a label that is another one
SELECT said('phone', '{"last_name": "Lee", "emails": ["a@x.org", "Ann.Lee@Example.ORG"], "phones": [{"number": "+1 650-253-0000", "type": "work"}], "urls": ["https://x.org/a"], "note": "one\ntwo"}', 1),
	said('crm', '{"last_name": "Lee", "emails": ["a@x.org"]}', 2);
SELECT wrote('crm', '{"emails": {"add": ["Ann.Lee@Example.ORG"]}, "phones": {"add": [{"number": "+1 650-253-0000", "type": "work"}]}, "urls": {"add": ["https://x.org/a"]}, "note": "one\ntwo"}', 5, 'phone');
SELECT said('crm', '{"last_name": "Lee", "emails": ["a@x.org", "ann.lee@example.org"], "phones": ["+1 (650) 253-0000"], "urls": ["https://x.org/a"], "note": "one two"}', 6, 'snapshot');
SELECT said('crm', '{"last_name": "Lee", "emails": ["a@x.org", "ann.lee@example.org"], "phones": ["+16502530000"], "urls": ["https://x.org/a"], "note": "one\r\ntwo "}', 7, 'snapshot');
SELECT process();
SELECT * FROM claims WHERE source = 'crm';
SELECT said('crm', '{"phones": [{"number": "+16502530000", "type": "home"}]}', 8);
SELECT process();
SELECT field, value, source, claim FROM claims WHERE field ~ '^phones' AND source = 'crm';
-- it is no evidence of who the record is, neither by our write nor by what is shown for it
SELECT source, key FROM identities JOIN records r ON r.id = record_id WHERE key ~ '^email' ORDER BY 1, 2;
-- nor does an echo vote
SELECT set_policy('note', 'most_frequent');
SELECT said('mkt', '{"last_name": "Lee", "emails": ["a@x.org"], "note": "other"}', 9);
SELECT process();
SELECT note FROM directory;
-- compaction keeps it apart
SELECT compact(day(7)) > 0;
SELECT * FROM verify();
SELECT said('phone', NULL, 10, 'delete');
SELECT process();
SELECT * FROM claims;
SELECT * FROM verify();

-- a clear that we wrote, of what the origin never had
SELECT wrote('crm', '{"suffix": null}', 11, 'mkt');
SELECT process();
SELECT contact_provenance(state) ? 'suffix' AS suffix FROM records WHERE source = 'crm';

CALL forget();

-- what our write displaced is offered once its origin is gone, neither restored nor lost
CREATE TEMP VIEW asked AS SELECT k.field, k.element, k.reason, k.state, c ->> 'source' AS source, c -> 'value' AS value, c -> 'displaced' AS displaced
	FROM contactsync.conflicts k, jsonb_array_elements(k.candidates) c ORDER BY 1, 2, (c ->> 'candidate')::integer;
SELECT said('phone', '{"last_name": "Lee", "emails": ["a@x.org"], "title": "CTO", "nickname": "Al", "tags": ["vip"], "metadata": {"k": "p"}}', 1),
	said('crm', '{"last_name": "Lee", "emails": ["a@x.org"], "title": "CFO", "company": "Acme", "nickname": "Bo", "tags": ["old"], "metadata": {"k": "c"}}', 0);
SELECT wrote('crm', '{"title": "CTO", "nickname": "Al", "tags": {"add": ["vip"], "remove": ["old"]}, "metadata": {"k": "p"}}', 5, 'phone');
SELECT process();
SELECT * FROM asked;
-- it is asked about where the origin's claim has ended, not before
SELECT said('phone', '{"nickname": null, "metadata": {"k": null}}', 6);
SELECT process();
SELECT * FROM asked;
SELECT nickname, metadata FROM directory;
-- and said before the write, but known later
SELECT said('crm', '{"nickname": "Bob"}', 3);
SELECT process();
SELECT * FROM asked WHERE field = 'nickname';
SELECT field, value, source, verdict, claim FROM claims WHERE field ~ '^nickname|^metadata';
-- another value of the origin: its echo has ended, too
SELECT said('phone', '{"title": "CEO"}', 7);
SELECT process();
SELECT * FROM asked WHERE field = 'title';
SELECT company, title FROM directory;
-- written again, there is nothing to be asked
SELECT wrote('crm', '{"title": "CEO"}', 8, 'phone');
SELECT process();
SELECT field, state FROM conflicts ORDER BY 1;
SELECT * FROM verify();
-- the origin is gone, and the base knows what was displaced by what
SELECT compact(day(7)) > 0;
SELECT said('phone', NULL, 9, 'delete');
SELECT process();
SELECT * FROM asked;
SELECT nickname, title, tags, metadata FROM directory;
SELECT * FROM verify();
-- until it is decided, by candidate or by value
SELECT resolve_conflict(id, candidate => 1) FROM conflicts WHERE field = 'title';
SELECT resolve_conflict(id, value => 'null') FROM conflicts WHERE field = 'nickname';
SELECT field, state FROM conflicts ORDER BY 1;
SELECT nickname, company, title, tags, metadata FROM directory;
-- or the source says something itself
SELECT said('crm', '{"metadata": {"k": "new"}, "tags": {"add": ["old"]}}', 10);
SELECT process();
SELECT field, state FROM conflicts ORDER BY 1;
SELECT nickname, title, tags, metadata FROM directory;
SELECT * FROM verify();
CALL forget();

-- whoever says the same by itself lets nothing be lost
SELECT said('phone', '{"last_name": "Lee", "emails": ["a@x.org"], "note": "new"}', 1), said('crm', '{"last_name": "Lee", "emails": ["a@x.org"], "note": "old"}', 1);
SELECT said('mkt', '{"last_name": "Lee", "emails": ["a@x.org"], "note": "old"}', 1);
SELECT wrote('crm', '{"note": "new"}', 5, 'phone');
SELECT said('phone', '{"note": null}', 6);
SELECT process();
SELECT * FROM asked;
SELECT field, value, source, verdict, claim FROM claims;
SELECT set_policy('note', 'manual_review');
SELECT said('mkt', '{"note": "other"}', 7);
SELECT process();
SELECT * FROM asked;
-- emptied by our write as its origin had emptied it; and what the source had emptied itself is nothing
SELECT said('crm', '{"nickname": "Bo", "suffix": "Jr"}', 8), said('crm', '{"suffix": null}', 9), said('phone', '{"nickname": "Al"}', 8), said('phone', '{"nickname": null, "suffix": "Sr"}', 9);
SELECT wrote('crm', '{"nickname": null, "suffix": "Sr"}', 10, 'phone');
SELECT process();
SELECT * FROM asked WHERE field <> 'note';
SELECT said('phone', NULL, 11, 'delete');
SELECT process();
SELECT * FROM asked WHERE field <> 'note';
SELECT * FROM verify();

-- errors
SAVEPOINT s;
SELECT _confirm_write('crm', 'r', '{"title": "x"}', day(1), '{"titel": {"source": "a", "source_id": "b"}}');
ROLLBACK TO s;
SELECT _confirm_write('crm', 'r', '{"title": "x"}', day(1), '{"title": {"source": "a"}}');
ROLLBACK TO s;
ROLLBACK;
