-- Editing through the view directory: observations of the source "app", applied at once, weighed by the rules.
\set VERBOSITY terse
\set SHOW_CONTEXT never
CREATE ROLE cs_edit_app LOGIN IN ROLE contactsync_app;
CREATE ROLE cs_edit_analyst LOGIN IN ROLE contactsync_analyst;
BEGIN;
SET search_path = contactsync, pg_catalog;
SELECT count(add_source(s, 'canonical')) FROM unnest(ARRAY['ea', 'eb']) s;
SET ROLE cs_edit_app;
SET search_path = public;

-- INSERT: there at once, and RETURNING tells what has become of it
INSERT INTO contactsync.directory (first_name, last_name, emails, tags, metadata)
VALUES ('Ann', 'Edit', '["Ann@Edit.org", {"address": "a@edit.org", "type": "home"}]', '{vip}', '{"k": 1}')
RETURNING id, first_name, emails, tags, metadata, source, version, modified_by \gset e_
SELECT :'e_first_name' AS first_name, :'e_emails' AS emails, :'e_tags' AS tags, :'e_metadata' AS metadata, :'e_source' AS source, :e_version AS version, :'e_modified_by' AS modified_by;
SELECT name, connector, class FROM contactsync.sources WHERE name = 'app';
SELECT kind, claims::text FROM contactsync.observations ORDER BY id DESC LIMIT 1;
-- UPDATE: a patch of what was changed
UPDATE contactsync.directory SET title = 'CTO', last_name = 'Edit-Lee' WHERE id = :'e_id' RETURNING title, last_name, version;
SELECT kind, claims::text FROM contactsync.observations ORDER BY id DESC LIMIT 1;
UPDATE contactsync.directory SET title = 'CTO' WHERE id = :'e_id' RETURNING version;
UPDATE contactsync.directory SET title = NULL, note = '' WHERE id = :'e_id' RETURNING title, note, version;
-- lists, by element; tags and metadata by key
UPDATE contactsync.directory SET emails = '["ann@edit.org", "new@edit.org"]', tags = tags || 'b'::text, metadata = metadata - 'k' || '{"j": 2}' WHERE id = :'e_id'
RETURNING emails, tags, metadata;
SELECT claims::text, covers FROM contactsync.observations ORDER BY id DESC LIMIT 1;
-- to mark another one as primary is enough
UPDATE contactsync.directory SET emails[1]['primary'] = 'true' WHERE id = :'e_id' RETURNING emails;
UPDATE contactsync.directory SET emails = NULL, tags = '{}' WHERE id = :'e_id' RETURNING emails, tags;
-- the contact as a whole
UPDATE contactsync.directory SET contact = '{"first_name": "Anna", "emails": ["w@edit.org"]}' WHERE id = :'e_id' RETURNING contact::jsonb - '_provenance' AS contact, last_name, metadata;
INSERT INTO contactsync.directory (contact, note) VALUES ('{"first_name": "Bo", "note": "x"}', 'y') RETURNING first_name, note;

-- versions: as read, or one up; a stale one is told so
SELECT version AS v FROM contactsync.directory WHERE id = :'e_id' \gset
UPDATE contactsync.directory SET note = 'a', version = :v WHERE id = :'e_id' RETURNING note, version - :v AS more;
UPDATE contactsync.directory SET note = 'b', version = version + 1 WHERE id = :'e_id' AND version = :v + 1 RETURNING note, version - :v AS more;
SAVEPOINT s;
\set VERBOSITY default
UPDATE contactsync.directory SET note = 'c', version = :v WHERE id = :'e_id';
ROLLBACK TO s;
-- what is computed cannot be written
UPDATE contactsync.directory SET modified_by = 'me' WHERE id = :'e_id';
ROLLBACK TO s;
INSERT INTO contactsync.directory (id, first_name) VALUES (gen_random_uuid(), 'x');
ROLLBACK TO s;
INSERT INTO contactsync.directory (first_name) VALUES ('');
ROLLBACK TO s;
UPDATE contactsync.directory SET emails = '{"address": "x"}' WHERE id = :'e_id';
ROLLBACK TO s;
\set VERBOSITY terse
-- a view has nothing to conflict with; rows can be copied into it
INSERT INTO contactsync.directory (first_name) VALUES ('x') ON CONFLICT (id) DO UPDATE SET first_name = 'y';
ROLLBACK TO s;
COPY contactsync.directory (first_name, last_name) FROM stdin;
Bo	Copy
\.
SELECT first_name, last_name, sources ->0 ->> 'source' AS source FROM contactsync.directory WHERE last_name = 'Copy';
-- DELETE: what is the application's alone
DELETE FROM contactsync.directory WHERE first_name = 'Bo' RETURNING first_name;
SELECT count(*) FROM contactsync.directory WHERE first_name = 'Bo';
RESET ROLE;

-- an edit of what other sources assert: a record of "app" of its own, linked by decision
SET search_path = contactsync, pg_catalog;
SELECT count(ingest('ea', '1', '{"first_name": "Cy", "last_name": "Dee", "company": "Acme", "note": "ea", "emails": ["c@edit.org", "d@edit.org"], "tags": ["x"], "metadata": {"k": 1, "j": 2}}', '2026-01-01'));
SELECT count(ingest('eb', '1', '{"last_name": "Dee", "note": "eb", "emails": ["c@edit.org"]}', '2026-01-02')), process();
SELECT find('c@edit.org') AS cy \gset
SET ROLE cs_edit_app;
SET search_path = public;
UPDATE contactsync.directory SET title = 'CTO', nickname = 'C' WHERE id = :'cy' RETURNING id = :'cy' AS same, title, nickname, jsonb_path_query_array(sources, '$[*].source') AS sources;
SELECT kind, cardinality(records) AS records, cardinality(others) AS others, note FROM contactsync.decisions;
UPDATE contactsync.directory SET note = 'mine', emails = '["c@edit.org"]', tags = '{}', metadata = '{"k": 3}' WHERE id = :'cy' RETURNING note, emails, tags, metadata;
SELECT field, value, reason FROM contactsync.overrides ORDER BY field;
SELECT field, rank, value, source, verdict FROM contactsync.explain(:'cy', 'note');
-- what is removed comes back if it is asserted anew
SELECT count(contactsync.ingest('eb', '1', '{"tags": ["x"]}', clock_timestamp(), 'patch')), contactsync.process();
SELECT tags FROM contactsync.directory WHERE id = :'cy';
-- not the application's to delete
SAVEPOINT s;
\set VERBOSITY default
\set SHOW_CONTEXT never
DELETE FROM contactsync.directory WHERE id = :'cy';
ROLLBACK TO s;
-- rules decide: an edit that does not become canonical says so
RESET ROLE;
SELECT contactsync.set_policy('note', 'source_priority', '{ea}'), contactsync.process();
SET ROLE cs_edit_app;
UPDATE contactsync.directory SET note = 'no use', nickname = 'Cyd' WHERE id = :'cy' RETURNING note, nickname;
\set VERBOSITY terse
-- a link of no consequence for anybody else: an undo parts them again
SELECT contactsync.undo(id) > 0 AS undone FROM contactsync.decisions WHERE kind = 'link';
SELECT count(*) FROM contactsync.directory WHERE nickname = 'Cyd' OR id = :'cy';

RESET ROLE;
SELECT * FROM contactsync.verify();
-- rights
SET ROLE cs_edit_analyst;
SAVEPOINT s;
UPDATE contactsync.directory SET note = 'x';
ROLLBACK TO s;
SELECT contactsync._edit('DELETE', :'cy', 1, NULL, NULL);
ROLLBACK TO s;
RESET ROLE;
ROLLBACK;

-- two tenants: each edits its own
CREATE ROLE cs_edit_a; CREATE ROLE cs_edit_b;
CREATE ROLE cs_edit_user_a LOGIN IN ROLE cs_edit_a, contactsync_app; CREATE ROLE cs_edit_user_b LOGIN IN ROLE cs_edit_b, contactsync_app;
SELECT contactsync.add_tenant('edit_a', 'cs_edit_a'), contactsync.add_tenant('edit_b', 'cs_edit_b');
SET ROLE cs_edit_user_a; SET contactsync.tenant = 'edit_a';
INSERT INTO contactsync.directory (first_name, emails) VALUES ('A', '["same@edit.org"]') RETURNING id AS a \gset
SELECT contactsync.override_field(:'a', 'title', '"a"') AS decision \gset
SET ROLE cs_edit_user_b; SET contactsync.tenant = 'edit_b';
INSERT INTO contactsync.directory (first_name, emails) VALUES ('B', '["same@edit.org"]');
UPDATE contactsync.directory SET note = 'b';
UPDATE contactsync.directory SET note = 'b' WHERE id = :'a';
DELETE FROM contactsync.directory WHERE id = :'a';
SELECT contactsync._edit('UPDATE', :'a', 1, NULL, '{"note": "b"}');
\set VERBOSITY sqlstate
SELECT contactsync.undo(:decision);
SELECT contactsync.override_field(:'a', 'note', '"b"');
SELECT contactsync.release_override(:'a', 'title');
SELECT contactsync.revert_contact(:'a', now());
\set VERBOSITY terse
SELECT count(*) FROM contactsync.overrides;
SELECT first_name, note FROM contactsync.directory;
SET ROLE cs_edit_user_a; SET contactsync.tenant = 'edit_a';
SELECT field, value FROM contactsync.overrides;
SELECT first_name, note FROM contactsync.directory;
RESET ROLE; RESET contactsync.tenant;
SELECT contactsync.drop_tenant('edit_a', true), contactsync.drop_tenant('edit_b', true);
DROP ROLE cs_edit_user_a, cs_edit_user_b, cs_edit_a, cs_edit_b;
DROP ROLE cs_edit_app, cs_edit_analyst;
