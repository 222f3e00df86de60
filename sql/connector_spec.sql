-- What may be said in a connector, and what a page becomes: no network needed.
\set VERBOSITY default
\pset format unaligned
SET search_path = contactsync, public;

-- the least of a connector, and its faults with their paths
CREATE FUNCTION spec(more jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
	$$SELECT '{"driver": "rest", "list": {"path": "/c", "items": "$.items"}, "item": {"id": "$.id"}}'::jsonb || more$$;
CREATE FUNCTION fault(spec jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	path text;
BEGIN
	PERFORM contactsync.add_connector('c', spec);
	RETURN 'none';
EXCEPTION WHEN invalid_parameter_value THEN
	GET STACKED DIAGNOSTICS path = PG_EXCEPTION_DETAIL;
	RETURN SQLERRM || ' -- ' || path;
END
$$;
SELECT fault(spec('{}'));
SELECT n, fault(spec(s::jsonb)) FROM (VALUES
	(1, '{"driver": "soap"}'),
	(2, '{"lists": {}}'),
	(3, '{"list": {"items": "$.i"}}'),
	(4, '{"list": {"path": "/c"}}'),
	(5, '{"item": {}}'),
	(6, '{"list": {"path": "/c", "items": "$["}}'),
	(7, '{"list": {"path": "/c/{who}", "items": "$.i"}}'),
	(8, '{"parameters": {"who": ""}, "list": {"path": "/c/{who}", "items": "$.i"}}'),
	(9, '{"list": {"path": "/c", "items": "$.i", "query": {"q": {"a": 1}}}}'),
	(10, '{"list": {"path": "/c", "items": "$.i", "method": "DELETE"}}'),
	(11, '{"list": {"path": "/c", "items": "$.i", "page": {"style": "pages"}}}'),
	(12, '{"list": {"path": "/c", "items": "$.i", "page": {"style": "cursor", "param": "p"}}}'),
	(13, '{"list": {"path": "/c", "items": "$.i", "page": {"next": "$.n"}}}'),
	(14, '{"list": {"path": "/c", "items": "$.i", "page": {"next": "$.n"}, "query": {"p": "{after}"}}}'),
	(15, '{"list": {"path": "/c", "items": "$.i", "page": {"style": "keyset", "param": "p"}}}'),
	(16, '{"list": {"path": "/c", "items": "$.i", "page": {"style": "offset", "param": "p", "start": "one"}}}'),
	(17, '{"list": {"path": "/c", "items": "$.i", "since": {"overlap": "a while"}}}'),
	(18, '{"list": {"path": "/c", "items": "$.i", "since": {"format": "roman"}}}'),
	(19, '{"list": {"path": "/c", "items": "$.i", "token": {"style": "url"}}}'),
	(20, '{"list": {"path": "/c", "items": "$.i", "fetch": {"path": "/c/{id}"}}}'),
	(21, '{"changes": []}'),
	(22, '{"changes": [{"path": "/c", "items": "$.i"}, {"path": "/d"}]}'),
	(23, '{"changes": [{"path": "/c", "items": "$.i", "item": {"id": "$.", "colour": "$.c"}}]}'),
	(24, '{"lost": {"status": ["410"]}}'),
	(25, '{"lost": {"codes": [410]}}'),
	(26, '{"limits": {"rate": {"requests": 0, "per": "1 s"}}}'),
	(27, '{"limits": {"rate": {"requests": 5, "per": "soon"}}}'),
	(28, '{"misses": "two"}'),
	(29, '{"full_every": "often"}'),
	(30, '{"url": "http://api.example"}'),
	(31, '{"auth": {"token_url": "https://x.example/{realm}"}}'),
	(32, '{"auth": {"client_auth": "tls"}}'),
	(33, '{"list": {"path": "/c", "items": "$.i", "body": {"a": ["{since}", "{untl}"]}}}'),
	(34, '{"list": {"path": "/c", "items": "$.i", "headers": {"X": "a\nb"}}}'),
	(35, '{"map": {"first_name": {"$.a": 1}}}'),
	(36, '{"map": {"first_name": ["$.a", "$.b"], "tags": "$.t"}}'),
	(37, '{"parameters": {"A": "b"}}'),
	(38, '{"webhook": {"scheme": "x"}}'),
	(39, '{"partitions": {"path": "/b", "items": "$.b"}}'),
	(40, '{"partitions": {"path": "/b", "items": "$.b", "id": "$.id", "page": {"style": "keyset", "param": "p"}}}'),
	(41, '{"partitions": {"path": "/b", "items": "$.b", "id": "$.id", "fixed": [1]}}'),
	(42, '{"partitions": {"path": "/b", "items": "$.b", "id": "$.id", "token": {"next": "$.t"}}}'),
	(43, '{"list": {"path": "/{partition}", "items": "$.i"}}'),
	(44, '{"list": {"path": "/{partition}", "items": "$.i"}, "partitions": {"path": "/b", "items": "$.b", "id": "$.id", "nested": "/b/{partition}", "fixed": ["c"], "only": "{part}"}}'),
	(45, '{"list": {"path": "/{partition}", "items": "$.i"}, "partitions": {"path": "/b", "items": "$.b", "id": "$.id", "nested": "/b/{partition}", "fixed": ["c"]}}')) v (n, s) ORDER BY n;
SELECT fault(NULL), fault('[]'), fault('{"driver": "carddav", "changes": [{"path": "/c", "items": "$.i", "item": {"id": "$.i"}}]}');

-- the shipped ones are as they should be
SELECT name, spec ->> 'driver' AS driver, spec ->> 'url' AS url, coalesce(jsonb_array_length(spec -> 'changes'), 0) AS changes
FROM connectors WHERE tenant_id = '*' ORDER BY name;

-- ---- what a page becomes ----
\pset format aligned
\x on
SELECT * FROM test_connector('google', '{"connections": [
	{"resourceName": "people/c1", "etag": "e", "metadata": {"sources": [{"type": "PROFILE", "updateTime": "2020-01-01T00:00:00Z"},
		{"type": "CONTACT", "id": "1", "updateTime": "2026-01-02T03:04:05.678901Z"}], "objectType": "PERSON", "previousResourceNames": ["people/c0"]},
	 "names": [{"givenName": "Second"}, {"metadata": {"sourcePrimary": true}, "givenName": "Ada", "familyName": "Lovelace"}],
	 "emailAddresses": [{"metadata": {"sourcePrimary": true}, "value": "ada@x.org", "type": "work"}, {"value": "ada@home.example", "metadata": {"verified": true}}],
	 "phoneNumbers": [{"value": "+44 20 7946 0018", "canonicalForm": "+442079460018", "type": "mobile"}],
	 "organizations": [{"name": "Old", "title": "Clerk"}, {"name": "Engines", "title": "Analyst", "current": true}]},
	{"resourceName": "people/c2", "metadata": {"sources": [{"type": "CONTACT", "id": "2"}], "deleted": true}},
	{"resourceName": "people/c3", "metadata": {"sources": [{"type": "CONTACT", "updateTime": "soon"}]}, "names": [{"unstructuredName": "Cher"}]}],
	"nextPageToken": "more"}');
SELECT item, source_id, version, kind, contact, next FROM test_connector('google', '{"nextSyncToken": "t"}');
SELECT item, source_id, version, kind, contact, fault FROM test_connector('hubspot', '{"results": [{"id": "151", "properties": {"firstname": "Ada", "lastname": "", "email": "ada@x.org",
	"hs_additional_emails": "ada.home@x.org; ada.old@x.org;", "mobilephone": "+442079460018", "billing_contact": "Bob", "phone": null},
	"propertiesWithHistory": {"jobtitle": [{"value": "CTO", "timestamp": "2026-01-03T00:00:00Z"}, {"value": "Clerk", "timestamp": "2026-01-01T00:00:00Z"}]},
	"createdAt": "2026-01-01T00:00:00.000Z", "updatedAt": "2026-01-03T03:04:05.678Z", "archived": false}], "paging": {"next": {"after": "152"}}}');
SELECT item, source_id, version, kind, fault FROM test_connector('hubspot', '{"results": [{"id": "140", "archived": true, "archivedAt": "2026-01-05T10:00:00Z"}]}', 2);
SELECT item, source_id, version, kind, contact, fault, next FROM test_connector('graph', '{"value": [
	{"id": "A=", "givenName": "Garth", "surname": "Fort", "title": "Dr", "jobTitle": "Manager", "companyName": "Contoso", "emailAddresses": [{"address": "g@x.org"}],
	 "businessPhones": ["+1 918 555 0101", "+1 918 555 0102"], "homePhones": [], "mobilePhone": "+1 918 555 0103", "categories": ["red", "vip"], "lastModifiedDateTime": "2026-01-05T08:00:00Z"},
	{"id": "B=", "jobTitle": "VP"}, {"id": "C=", "@removed": {"reason": "deleted"}}], "@odata.deltaLink": "https://graph.microsoft.com/v1.0/x?$deltatoken=t"}');
SELECT item, source_id, kind, fault, next FROM test_connector('graph', '{"value": [{"id": "F=", "displayName": "Family", "parentFolderId": "R="}], "@odata.nextLink": "https://graph.microsoft.com/v1.0/x?$skip=1"}', -1);
SELECT item, source_id, version, kind, contact, fault, next FROM test_connector('salesforce', '{"totalSize": 2, "done": false, "nextRecordsUrl": "/services/data/v60.0/query/01g-2000",
	"records": [{"Id": "003xx000004TmiQAAS", "FirstName": "Ada", "LastName": "Lovelace", "Account": {"Name": "Engines"}, "Email": "ada@x.org",
	"SystemModstamp": "2026-01-02T03:04:05.000+0000", "IsDeleted": false}, {"Id": "003xx000004TmiRAAS", "LastName": "G", "SystemModstamp": "2026-01-02T03:04:05.000+0000", "IsDeleted": true}]}');
SELECT item, source_id, version, kind FROM test_connector('salesforce', '{"deletedRecords": [{"id": "003xx000004TmiSAAS", "deletedDate": "2026-01-05T20:07:19.000+0000"}]}', 2);
SELECT item, source_id, version, kind, contact, fault FROM test_connector('scim', '{"totalResults": 1, "Resources": [{"id": "2f55", "userName": "bjensen", "name": {"familyName": "Jensen", "givenName": "Barbara"},
	"meta": {"created": "2026-11-23T20:10:42.143Z", "lastModified": "2026-11-23T20:10:42.143Z"}, "active": true,
	"emails": [{"value": "b@x.org", "type": "work", "primary": true}], "phoneNumbers": [{"value": "tel:+1-555-555-5555", "type": "work"}],
	"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"organization": "Universal", "department": "Park"}}]}');
\x off
-- faults of the page, and of what is asked for
\set VERBOSITY terse
SELECT * FROM test_connector('hubspot', '{"results": {}}');
SELECT * FROM test_connector('hubspot', '{"results": [{"properties": {}}]}');
SELECT * FROM test_connector('hubspot', '[]', 3);
SELECT * FROM test_connector('hubspot', '[]', -1);
SELECT * FROM test_connector('nosuch', '[]');
SELECT * FROM test_connector('carddav', '[]');

-- ---- sources of them ----
BEGIN;
SELECT add_source('h', 'hubspot', '{"class": "crm", "webhook": true, "poll": "5 min", "write": ["personal"]}') IS NOT NULL AS added;
SELECT settings FROM sources WHERE name = 'h';
SELECT add_source('h', 'hubspot', '{"class": "crm", "webhook": true, "poll": "5 min", "write": ["personal"]}') IS NOT NULL AS the_same;
ROLLBACK;
SELECT add_source('s', 'salesforce', '{}');
SELECT add_source('s', 'hubspot', '{"parameters": {"colour": "red"}}');
SELECT add_source('s', 'hubspot', '{"parameters": {"prefix": 1}}');
SELECT add_source('s', 'hubspot', '{"token_url": "http://login.example/t"}');
SELECT add_source('s', 'hubspot', '{"rate": {"requests": 1}}');
SELECT add_source('s', 'hubspot', '{}', '{"cookie": "x"}');
DROP FUNCTION spec(jsonb), fault(jsonb);
