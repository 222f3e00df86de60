-- Editing through the view directory: observations of the source "app", applied at once, weighed by the rules.
\set VERBOSITY terse
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
SELECT kind, claims::text FROM contactsync.observations;
-- UPDATE: a patch of what was changed
UPDATE contactsync.directory SET title = 'CTO', last_name = 'Edit-Lee' WHERE id = :'e_id' RETURNING title, last_name, version;
SELECT kind, claims::text FROM contactsync.observations ORDER BY id DESC LIMIT 1;
UPDATE contactsync.directory SET title = 'CTO' WHERE id = :'e_id' RETURNING version;
UPDATE contactsync.directory SET title = NULL, note = '' WHERE id = :'e_id' RETURNING title, note, version;
-- lists, by element; tags and metadata by key
UPDATE contactsync.directory SET emails = '["ann@edit.org", "new@edit.org"]', tags = tags || 'b'::text, metadata = metadata - 'k' || '{"j": 2}' WHERE id = :'e_id'
RETURNING emails, tags, metadata;
SELECT claims::text, covers FROM contactsync.observations ORDER BY id DESC LIMIT 1;
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
-- DELETE: what is the application's alone
DELETE FROM contactsync.directory WHERE first_name = 'Bo' RETURNING first_name;
SELECT count(*) FROM contactsync.directory WHERE first_name = 'Bo';
ROLLBACK;
DROP ROLE cs_edit_app, cs_edit_analyst;
