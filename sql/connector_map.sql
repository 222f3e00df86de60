-- What the shipped connectors make of a provider's payload: every field that a contact
-- has a place for arrives there, all else in metadata. The people are invented.
\set VERBOSITY terse
\pset format unaligned
\pset tuples_only on
SET search_path = contactsync, public;

SELECT jsonb_pretty(map('google', '{"resourceName": "people/c1", "etag": "%e", "metadata": {"sources": [{"type": "CONTACT", "id": "1", "updateTime": "2026-01-02T03:04:05.678901Z"}], "objectType": "PERSON"},
	"names": [{"givenName": "Profile"}, {"metadata": {"sourcePrimary": true}, "displayName": "Dr Inés M Ruiz Jr", "givenName": "Inés", "middleName": "M", "familyName": "Ruiz", "honorificPrefix": "Dr", "honorificSuffix": "Jr",
		"phoneticGivenName": "Ines"}],
	"nicknames": [{"value": "Nes"}], "biographies": [{"value": "met in Lima", "contentType": "TEXT_PLAIN"}], "fileAses": [{"value": "Ruiz, I"}],
	"birthdays": [{"metadata": {"sourcePrimary": true}, "date": {"month": 2, "day": 9}}], "genders": [{"value": "female"}],
	"photos": [{"url": "https://photos.example/default", "default": true}, {"url": "https://photos.example/ines"}],
	"organizations": [{"name": "Old", "title": "Clerk"}, {"name": "Bolt", "department": "R&D", "title": "Lead", "current": true}],
	"emailAddresses": [{"metadata": {"sourcePrimary": true, "verified": true}, "value": "ines@bolt.example", "type": "work"}, {"value": "ines@home.example", "type": "home"}],
	"phoneNumbers": [{"value": "+34 600 000 001", "canonicalForm": "+34600000001", "type": "mobile"}, {"value": "+34 910 000 002", "type": "homeFax"}, {"value": "+34 910 000 003", "type": "car"}],
	"addresses": [{"poBox": "PO 7", "streetAddress": "Calle Uno 1", "city": "Madrid", "region": "MD", "postalCode": "28001", "countryCode": "ES", "type": "home"}],
	"urls": [{"value": "https://ines.example", "type": "homePage"}], "relations": [{"person": "Ana", "type": "sister"}], "imClients": [{"username": "nes", "protocol": "jabber"}],
	"events": [{"date": {"year": 2001, "month": 5, "day": 6}, "type": "anniversary"}], "userDefined": [{"key": "badge", "value": "7"}], "externalIds": [{"value": "E-1", "type": "customer"}],
	"memberships": [{"contactGroupMembership": {"contactGroupResourceName": "contactGroups/5f2a"}}], "occupations": [{"value": "chemist"}]}')::jsonb);
-- a name that was not parsed, a date that is a text, a whole date
SELECT map('google', '{"names": [{"unstructuredName": "Cher"}], "birthdays": [{"text": "spring"}]}'), map('google', '{"birthdays": [{"date": {"year": 1990, "month": 12, "day": 31}}]}');

SELECT jsonb_pretty(map('graph', '{"@odata.etag": "W/\"x\"", "id": "A=", "createdDateTime": "2026-01-01T00:00:00Z", "lastModifiedDateTime": "2026-01-02T00:00:00Z", "changeKey": "x", "parentFolderId": "F=",
	"givenName": "Aiko", "middleName": "R", "surname": "Mori", "title": "Ms", "generation": "III", "nickName": "Ai", "initials": "A.M.", "displayName": "Aiko Mori", "fileAs": "Mori, Aiko",
	"yomiGivenName": "aiko", "yomiSurname": "mori", "companyName": "Kite", "department": "Wind", "jobTitle": "Pilot", "profession": "engineer", "birthday": "1604-03-04T11:59:00Z", "personalNotes": "likes tea",
	"emailAddresses": [{"name": "Aiko", "address": "z@kite.example"}, {"address": "a@kite.example"}], "businessPhones": ["+81 3 0000 0001"], "homePhones": ["+81 3 0000 0002"], "mobilePhone": "+81 90 0000 0003",
	"businessAddress": {"street": "1-1", "city": "Tokyo", "state": "TK", "postalCode": "100-0001", "countryOrRegion": "Japan"}, "homeAddress": {}, "otherAddress": {"city": "Kyoto"},
	"businessHomePage": "https://kite.example", "categories": ["vip", "red"], "imAddresses": ["sip:aiko@kite.example"], "officeLocation": "7F", "manager": "Ken", "assistantName": "Jun",
	"spouseName": "Ren", "children": ["Mei", "Sora"]}')::jsonb);
-- who has only a shown name; of a company that is no name
SELECT map('graph', '{"givenName": null, "surname": null, "displayName": "Madonna"}'), map('graph', '{"givenName": null, "surname": null, "displayName": "Kite", "companyName": "Kite"}');

SELECT jsonb_pretty(map('hubspot', '{"id": "7", "properties": {"firstname": "Omar", "lastname": "Said", "salutation": "Mr", "email": "omar@oak.example", "hs_additional_emails": "o@x.example;omar2@x.example",
	"phone": "+20 2 0000 0001", "mobilephone": "+20 100 000 0002", "fax": "+20 2 0000 0003", "company": "Oak", "jobtitle": "Owner", "address": "Nile St 1", "city": "Cairo", "state": "C", "zip": "11511",
	"country": "Egypt", "website": "oak.example", "date_of_birth": "1985-06-07", "gender": "male", "industry": "wood", "message": "call me", "twitterhandle": "omar", "associatedcompanyid": "99",
	"lifecyclestage": "lead", "hs_lead_status": "NEW", "hubspot_owner_id": "12", "billing_contact": "Sara", "lastmodifieddate": "2026-01-02T03:04:05.678Z"}}')::jsonb);

SELECT jsonb_pretty(map('salesforce', '{"attributes": {"type": "Contact"}, "Id": "003xx000004TmiQAAS", "Salutation": "Ms.", "FirstName": "Lena", "MiddleName": "K", "LastName": "Berg", "Suffix": "PhD", "Name": "Lena Berg",
	"Account": {"Name": "Fjord"}, "AccountId": "001xx", "Department": "Ops", "Title": "Head", "Birthdate": "1979-08-09", "Description": "a note", "Email": "lena@fjord.example",
	"EmailBouncedDate": "2026-01-01T00:00:00.000+0000", "Phone": "+47 22 00 00 01", "MobilePhone": "+47 900 00 002", "HomePhone": "+47 22 00 00 03", "OtherPhone": null, "AssistantPhone": "+47 22 00 00 04", "Fax": "+47 22 00 00 05",
	"AssistantName": "Per", "MailingStreet": "Gate 1", "MailingCity": "Oslo", "MailingState": "O", "MailingPostalCode": "0150", "MailingCountry": "Norway", "MailingAddress": {"city": "Oslo"},
	"OtherStreet": "Hytte 2", "OtherCity": "Voss", "LeadSource": "Web", "OwnerId": "005xx", "Jigsaw": null, "ReportsToId": "003yy", "SystemModstamp": "2026-01-02T03:04:05.000+0000", "IsDeleted": false}')::jsonb);

SELECT jsonb_pretty(map('scim', '{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "id": "u1", "externalId": "ext1", "meta": {"version": "W/\"1\""}, "userName": "kofi", "active": false,
	"name": {"givenName": "Kofi", "middleName": "B", "familyName": "Mensah", "honorificPrefix": "Mr.", "honorificSuffix": "II", "formatted": "Mr. Kofi B Mensah II"}, "displayName": "Kofi M", "nickName": "K",
	"title": "Guide", "profileUrl": "https://idp.example/kofi", "locale": "en-GH", "timezone": "Africa/Accra", "userType": "Employee",
	"emails": [{"value": "kofi@tour.example", "type": "work", "primary": true}, {"value": "k@home.example", "type": "home"}],
	"phoneNumbers": [{"value": "tel:+233-20-000-0001", "type": "mobile"}], "ims": [{"value": "kofi", "type": "xmpp"}], "photos": [{"value": "https://idp.example/k.jpg", "type": "photo"}],
	"addresses": [{"streetAddress": "High St 1", "locality": "Accra", "region": "GA", "postalCode": "GA-1", "country": "GH", "type": "work"}], "groups": [{"value": "g1", "display": "guides"}], "roles": [{"value": "lead"}],
	"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"employeeNumber": "42", "costCenter": "C1", "organization": "Tour", "division": "West", "department": "Walks", "manager": {"value": "u0"}},
	"urn:example:acme:User": {"shoe": "43"}}')::jsonb);
SELECT map('scim', '{"id": "u2", "userName": "x", "name": {"formatted": "Prince"}}');
-- a card
SELECT map('carddav', to_jsonb(E'BEGIN:VCARD\r\nVERSION:3.0\r\nN:Lee;Ann;;Dr;\r\nFN:Ann Lee\r\nTEL;TYPE=CELL:+1 202 555 0143\r\nX-BADGE:7\r\nEND:VCARD\r\n'::text));

-- ---- the ways to tell a value ----
SELECT add_connector('m', '{"driver": "canonical", "map": {"first_name": {"$value": "$.kind", "p": "Person", "c": null}, "last_name": {"$first": ["$.last", "$.name"]}, "birthday": {"$date": "$.born"},
	"company": {"$join": ["$.org", "$.units[*]"], "by": " / "}, "emails": [{"$each": "$.mails[*]", "address": "$.a", "verified": {"$value": "$.ok", "yes": true, "no": false, "": null}}],
	"metadata": {"$rest": {"of": "$.more", "prefix": "x_", "except": ["b"]}}}}');
SELECT map('m', '{"kind": "p", "last": null, "name": "N", "born": "1990-01-02T00:00:00Z", "org": "A", "units": ["B", 7, null], "mails": [{"a": "a@x.org", "ok": "yes"}, {"a": "b@x.org", "ok": "no"},
	{"a": "c@x.org", "ok": ""}], "more": {"a": 1, "b": 2, "c": "", "d": [], "e": {"f": null}}}');
SELECT map('m', '{"kind": "c", "last": "L", "name": "N"}'), map('m', '{"kind": "x"}'), map('m', '{"more": [1]}'), map('m', '[]'), map('m', '"text"');
SELECT b, map('m', jsonb_build_object('born', b)) ->> 'birthday' FROM (VALUES ('"1990-01-02"'::jsonb), ('"19900102"'), ('"--0102"'), ('"1604-01-02"'), ('631238400000'), ('"631238400000"'), ('"-631238400000"'),
	('{"year": 1990, "month": 1, "day": 2}'), ('{"month": 1, "day": 2}'), ('{"year": 0, "month": 1, "day": 2}'), ('"spring"'), ('""')) v (b);
SELECT map('m', '{"born": {"year": 1990}}');
-- what "$rest" names was there, and is not there any more
BEGIN;
SELECT add_source('m', 'm') IS NOT NULL;
SELECT count(ingest('m', '1', p::jsonb, v::timestamptz)) FROM (VALUES ('{"name": "N", "more": {"a": 1, "z": 2}}', '2026-01-01Z'), ('{"name": "N", "more": {"z": 3}}', '2026-01-02Z')) e (p, v);
SELECT process();
SELECT metadata FROM directory WHERE source = 'm';
ROLLBACK;
-- faults
CREATE FUNCTION fault(map jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	path text;
BEGIN
	PERFORM contactsync.add_connector('c', jsonb_build_object('driver', 'canonical', 'map', map));
	RETURN 'none';
EXCEPTION WHEN invalid_parameter_value THEN
	GET STACKED DIAGNOSTICS path = PG_EXCEPTION_DETAIL;
	RETURN SQLERRM || ' -- ' || path;
END
$$;
SELECT n, fault(m::jsonb) FROM (VALUES (1, '{"title": {"$valeu": "$.a"}}'), (2, '{"title": {"a": "$.a"}}'), (3, '{"emails": [{"address": {"$date": "$.["}}]}'), (4, '{"emails": [{"$all": "$.a"}]}'),
	(5, '{"metadata": {"$rest": "x_"}}'), (6, '{"metadata": {"$rest": {"but": []}}}'), (7, '{"metadata": {"$rest": {"of": "$["}}}'), (8, '{"metadata": {"$rest": {"except": "a"}}}'),
	(9, '{"metadata": {"$rest": {}}}')) v (n, m);
DROP FUNCTION fault(jsonb);
