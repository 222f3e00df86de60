-- Rules in their corners: decisions on every kind of cell, what establishes a value, first
-- sights of lists, repeated deletes, half names, primaries.  One transaction, rolled back.
BEGIN;
TRUNCATE contactsync.sources, contactsync.inbox, contactsync.records, contactsync.observations, contactsync.contacts,
	contactsync.identities, contactsync.contact_aliases, contactsync.conflicts, contactsync.decisions, contactsync.policies;
SET search_path = contactsync, public;
SET TimeZone = 'UTC';
SET client_min_messages = warning;

SELECT count(add_source(s, 'canonical', jsonb_build_object('class', c))) FROM (VALUES ('crm', 'office'), ('mkt', 'office'), ('phone', 'device')) v (s, c);
CREATE FUNCTION said(source text, payload jsonb, day integer, kind text DEFAULT 'patch', seq integer DEFAULT 0, created integer DEFAULT NULL)
	RETURNS void LANGUAGE sql AS $$
	SELECT contactsync.ingest(source, 'r', payload, '2026-01-01'::timestamptz + day * interval '1 day', kind, seq,
		created => '2026-01-01'::timestamptz + created * interval '1 day')
$$;
CREATE PROCEDURE forget() LANGUAGE sql AS $$
	TRUNCATE contactsync.inbox, contactsync.records, contactsync.observations, contactsync.contacts, contactsync.identities,
		contactsync.contact_aliases, contactsync.conflicts, contactsync.decisions, contactsync.policies
$$;

-- a decision holds for a field and for a group too
SELECT set_policy('note', 'manual_review'), set_policy('job', 'manual_review');
SELECT said('crm', '{"emails": ["a@x.org"], "note": "c", "company": "Acme", "title": "CTO"}', 2), said('phone', '{"emails": ["a@x.org"], "note": "p", "company": "Home"}', 6);
SELECT process();
SELECT note, company, title, open_conflicts FROM directory;
SELECT resolve_conflict(id, 1) FROM conflicts WHERE field = 'note';
SELECT resolve_conflict(id, value => '{"company": "Zap"}') FROM conflicts WHERE field = 'job';
SELECT note, company, title, open_conflicts FROM directory;
-- it keeps its value, but re-opens when all sources have come to say something else
SELECT said('crm', '{"note": "new"}', 7), said('phone', '{"note": "new"}', 8);
SELECT process();
SELECT note, open_conflicts FROM directory;
SELECT candidates -> 0 -> 'value' AS value FROM conflicts WHERE state = 'open';
SELECT resolve_conflict(id, 1) FROM conflicts WHERE state = 'open';
SELECT note, open_conflicts FROM directory;
CALL forget();

-- what only one source may say is established by it alone
SELECT set_policy('note', 'manual_review', '{office}', '{"only": true}');
SELECT said('phone', '{"emails": ["a@x.org"], "note": "p"}', 1), said('crm', '{"emails": ["a@x.org"], "note": "first"}', 2), said('mkt', '{"emails": ["a@x.org"], "note": "second"}', 3);
SELECT process();
SELECT note, open_conflicts FROM directory;
CALL forget();
-- a claim that does not fill the group's lead establishes nothing against one that does
SELECT set_policy('job', 'manual_review');
SELECT said('phone', '{"emails": ["a@x.org"], "title": "CTO"}', 1), said('crm', '{"emails": ["a@x.org"], "company": "Acme"}', 2), said('phone', '{"company": "Home"}', 3);
SELECT process();
SELECT company, open_conflicts FROM directory;
CALL forget();
-- a metadata key that went with its record's delete was withdrawn
SELECT set_policy('metadata.k', 'manual_review');
SELECT said('crm', '{"emails": ["a@x.org"], "metadata": {"k": 1}}', 1), said('crm', NULL, 2, 'delete'),
	said('mkt', '{"emails": ["a@x.org"], "metadata": {"k": 2}}', 3), said('crm', NULL, 4, 'undelete');
SELECT process();
SELECT metadata, open_conflicts FROM directory;
CALL forget();

-- a list whose change nobody witnessed is judged by its record's version, like any field
SELECT set_policy('tags', 'last_write_wins');
SELECT said('crm', '{"emails": ["a@x.org"], "tags": ["old"]}', 1, 'snapshot', created => 0), said('mkt', '{"emails": ["a@x.org"], "tags": ["new"]}', 9, 'snapshot');
SELECT process();
SELECT tags FROM directory;
CALL forget();
-- that a list was covered, or an element removed that was not there, is no change of it
SELECT set_policy('tags', 'last_write_wins');
SELECT said('crm', '{"emails": ["a@x.org"], "tags": ["a"]}', 1), said('crm', '{"tags": {"add": ["a"], "remove": ["z"]}}', 9), said('mkt', '{"emails": ["a@x.org"], "tags": ["m"]}', 5);
SELECT process();
SELECT tags FROM directory;
CALL forget();

-- a second delete takes nothing that the first had not taken
SELECT said('crm', '{"nickname": "Dee"}', 1), said('crm', NULL, 2, 'delete'), said('crm', NULL, 3, 'delete'), said('crm', NULL, 4, 'undelete');
SELECT process();
SELECT nickname FROM directory;
-- versions order by seq where their stamps are equal
SELECT said('crm', NULL, 5, 'delete', 1), said('crm', NULL, 5, 'undelete', 2);
SELECT process();
SELECT nickname FROM directory;
CALL forget();

-- half a name in a patch completes the name there was: it is not a name without a first name
SELECT said('crm', '{"first_name": "Ann", "last_name": "Lee", "emails": ["family@x.org"]}', 1), said('crm', '{"last_name": "Roe"}', 3),
	said('phone', '{"first_name": "Bob", "last_name": "Roe", "emails": ["family@x.org"]}', 2, 'snapshot');
SELECT process();
SELECT first_name, last_name FROM directory ORDER BY 1;
SELECT source, names FROM records ORDER BY 1;
CALL forget();

-- the primary named last is the primary, and excluded sources have no say
SELECT said('crm', '{"emails": [{"address": "a@x.org", "primary": true}, "b@x.org"]}', 1), said('crm', '{"emails": {"add": [{"address": "b@x.org", "primary": true}]}}', 2);
SELECT process();
SELECT emails FROM directory;
SELECT set_policy('emails.primary', 'last_write_wins', '{crm}', '{"only": true}');
SELECT said('phone', '{"emails": [{"address": "a@x.org", "primary": true}]}', 3);
SELECT process();
SELECT emails FROM directory;
CALL forget();

ROLLBACK;
