-- JSContact: cards read, written, and given back as they came.
SET search_path = contactsync, public;
\pset format unaligned
\pset tuples_only on

-- does a card come back as it was, and its contact too?
CREATE FUNCTION pg_temp.same(card jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN to_jscontact(c) = card THEN 'same card' ELSE to_jscontact(c)::text END || ', ' ||
		CASE WHEN contact_identical(c, from_jscontact(to_jscontact(c))) THEN 'same contact' ELSE from_jscontact(to_jscontact(c))::text END
	FROM from_jscontact(card) c $$;

-- every field, in the form that is written: nothing is left over
\set plain '{"@type": "Card", "version": "1.0", "uid": "u-1", "name": {"components": [{"kind": "surname", "value": "Okafor"}, {"kind": "given", "value": "Zoe"}, {"kind": "given2", "value": "Ada"}, {"kind": "title", "value": "Dr."}, {"kind": "generation", "value": "Jr."}], "full": "Zoe O."}, "nicknames": {"k1": {"name": "Zo"}}, "organizations": {"k1": {"name": "Initrode", "units": [{"name": "Purchase"}]}}, "titles": {"k1": {"name": "Buyer"}, "k2": {"kind": "role", "name": "Bargains"}}, "emails": {"k1": {"address": "zoe@example.org", "contexts": {"work": true}, "pref": 1}}, "phones": {"k1": {"number": "+1 555 0100", "contexts": {"private": true}, "features": {"mobile": true}}, "k2": {"number": "tel:+15550101;ext=7", "features": {"main-number": true}}, "k3": {"number": "5550102", "label": "boat"}}, "addresses": {"k1": {"contexts": {"work": true}, "components": [{"kind": "name", "value": "1 Main St"}, {"kind": "locality", "value": "Springfield"}, {"kind": "region", "value": "IL"}, {"kind": "postcode", "value": "62701"}, {"kind": "country", "value": "USA"}]}}, "links": {"k1": {"uri": "http://example.org/"}}, "anniversaries": {"k1": {"kind": "birth", "date": {"year": 1980, "month": 2, "day": 29}}}, "notes": {"k1": {"note": "one\\ntwo"}}, "keywords": {"rowing": true, "vip": true}, "media": {"k1": {"kind": "photo", "uri": "http://example.org/z.png"}}}'
SELECT from_jscontact(:'plain'), pg_temp.same(:'plain');

-- what has no field, and forms that are not ours, are kept as they came
\set rich '{"@type": "Card", "version": "1.0", "uid": "u-2", "kind": "individual", "language": "en", "created": "2024-01-02T03:04:05Z", "name": {"isOrdered": true, "components": [{"kind": "title", "value": "Dr."}, {"kind": "separator", "value": " "}, {"kind": "given", "value": "Zoe", "phonetic": "/x/"}, {"kind": "given2", "value": "Ada"}, {"kind": "given2", "value": "B."}, {"kind": "surname", "value": "Okafor"}, {"kind": "surname2", "value": "Roe"}, {"kind": "credential", "value": "M.D."}, {"kind": "generation", "value": "Jr."}], "sortAs": {"surname": "Okafor"}}, "nicknames": {"n1": {"name": "Second", "pref": 2}, "n2": {"name": "First", "pref": 1}}, "organizations": {"o1": {"name": "Initrode", "units": [{"name": "Sales"}, {"name": "East", "sortAs": "e"}]}, "o2": {"name": "Other"}}, "titles": {"t1": {"kind": "role", "name": "Helper", "organizationId": "o1"}, "t2": {"name": "Buyer"}}, "emails": {"e1": {"@type": "EmailAddress", "address": "zoe@EXAMPLE.org", "contexts": {"work": true, "private": true}, "label": "Desk"}, "e2": {"address": "z@example.org", "pref": 2}}, "phones": {"tel0": {"number": "tel:+1-555-0100;ext=7", "features": {"voice": true, "text": true, "mobile": true}, "contexts": {"private": true}, "pref": 1}}, "onlineServices": {"s1": {"service": "Mastodon", "uri": "https://social.example/@zoe", "user": "@zoe"}, "s2": {"uri": "xmpp:zoe@example.org"}, "s3": {"service": "Chat", "user": "z"}}, "links": {"l1": {"kind": "contact", "uri": "mailto:x@example.org"}, "l2": {"uri": "https://example.org/zoe", "label": "Blog"}, "l3": {"uri": "https://social.example/@zoe"}}, "addresses": {"a1": {"components": [{"kind": "number", "value": "1"}, {"kind": "name", "value": "Main St"}, {"kind": "apartment", "value": "Flat 2"}, {"kind": "locality", "value": "Springfield"}], "countryCode": "US", "coordinates": "geo:1,2", "timeZone": "Etc/UTC", "contexts": {"billing": true}}, "a2": {"isOrdered": true, "defaultSeparator": ", ", "components": [{"kind": "name", "value": "High St"}, {"kind": "separator", "value": " "}, {"kind": "number", "value": "5"}, {"kind": "floor", "value": "2nd"}, {"kind": "postcode", "value": "AB1"}]}, "a3": {"full": "Somewhere\\nelse"}, "a4": {"timeZone": "Etc/UTC"}}, "anniversaries": {"b1": {"kind": "birth", "date": {"@type": "PartialDate", "month": 2, "day": 29}, "place": {"full": "Here"}}, "b2": {"kind": "wedding", "date": {"year": 2001}}}, "notes": {"n1": {"note": "A", "author": {"name": "Bo"}}, "n2": {"note": "B"}}, "keywords": {"x": true, " y ": true}, "media": {"m1": {"kind": "logo", "uri": "http://example.org/l.png"}, "m2": {"kind": "photo", "uri": "data:image/png;base64,AAAA", "mediaType": "image/png"}}, "personalInfo": {"p1": {"kind": "hobby", "value": "chess"}}, "localizations": {"fr": {"titles/t2": {"name": "Acheteuse"}}}, "vCard": {"properties": [["x-a", {}, "text", "1"]], "convertedProperties": {}}, "example.com:more": [1, {"a": null}], "relatedTo": {"urn:x": {"relation": {}}}}'
SELECT (from_jscontact(:'rich')::jsonb) - 'metadata';
SELECT string_agg(k, ' ' ORDER BY k COLLATE "C") FROM jsonb_object_keys(from_jscontact(:'rich') -> 'metadata' -> 'jscontact') k;
SELECT pg_temp.same(:'rich');
-- the photo is not kept twice
SELECT from_jscontact(:'rich') -> 'metadata' -> 'jscontact' -> 'media';

-- once the contact changes, only what no longer holds is written anew
SELECT i, (to_jscontact(contact_patch(from_jscontact(:'rich'), p))) -> m
FROM (VALUES (1, 'nicknames', '{"nickname": "New"}'::jsonb), (2, 'nicknames', '{"nickname": null}'), (3, 'organizations', '{"department": "West"}'), (4, 'titles', '{"title": null, "metadata": {"role": "Head"}}'),
	(5, 'emails', '{"emails": [{"address": "zoe@example.org", "type": "desk"}, {"address": "new@example.org", "type": "home"}]}'), (6, 'emails', '{"emails": [{"address": "zoe@example.org", "type": "home", "primary": true, "verified": true}]}'),
	(7, 'phones', '{"phones": [{"number": "+1-555-0100", "extension": "7", "type": "work fax"}]}'), (8, 'onlineServices', '{"urls": [{"url": "https://social.example/@zoe", "type": "social"}]}'), (9, 'links', '{"urls": [{"url": "https://example.org/zoe", "type": "blog"}, {"url": "http://new.example/"}]}'),
	(10, 'addresses', '{"addresses": [{"street": "High St 5, 2nd", "postal_code": "AB1", "type": "home"}, {"city": "Bonn"}]}'), (11, 'anniversaries', '{"birthday": "1980-02"}'), (12, 'anniversaries', '{"birthday": "once"}'), (13, 'anniversaries', '{"birthday": null}'),
	(14, 'notes', '{"note": "C"}'), (15, 'keywords', '{"tags": ["z"]}'), (16, 'media', '{"photo": "http://example.org/n.png"}'), (17, 'media', '{"photo": null}'), (18, 'name', '{"first_name": "Ann"}')) AS v (i, m, p) ORDER BY i;

-- names that are whole only; organizations and groups
SELECT from_jscontact(c)::jsonb - 'metadata', pg_temp.same(c) FROM (VALUES
	('{"@type": "Card", "version": "1.0", "uid": "u", "name": {"full": "Zoe Ada Okafor"}}'::jsonb),
	('{"@type": "Card", "version": "1.0", "uid": "u", "name": {"full": "Cher"}}'),
	('{"@type": "Card", "version": "1.0", "uid": "u", "name": {"full": "Initrode"}, "organizations": {"k1": {"name": "Initrode"}}}'),
	('{"@type": "Card", "version": "1.0", "uid": "u", "kind": "org", "name": {"full": "Initrode Ltd."}}'),
	('{"@type": "Card", "version": "1.0", "uid": "u", "kind": "org", "name": {"full": "Initrode Ltd."}, "organizations": {"k1": {"name": "Initrode Ltd."}}}'),
	('{"@type": "Card", "version": "1.0", "uid": "u", "kind": "org", "name": {"full": "Shop"}, "organizations": {"k1": {"name": "Initrode"}}}'),
	('{"@type": "Card", "version": "1.0", "uid": "u", "kind": "group", "name": {"full": "All of us"}, "members": {"u-1": true}}')) AS v (c);
SELECT to_jscontact(contact_patch(from_jscontact('{"kind": "org", "uid": "u", "name": {"full": "Initrode"}}'), '{"company": "Initech"}'));

-- dates, partial and not
SELECT d, from_jscontact(c) ->> 'birthday', pg_temp.same(c) FROM unnest(ARRAY['{"year": 1980}', '{"year": 1980, "month": 2}', '{"month": 2, "day": 29}', '{"month": 2}', '{"year": 1980, "day": 3}', '{"year": 80, "month": 13, "day": 1}',
	'{"@type": "Timestamp", "utc": "1980-02-29T01:02:03Z"}', '{"year": 5740, "month": 6, "day": 12, "calendarScale": "hebrew"}']) d, jsonb_build_object('@type', 'Card', 'version', '1.0', 'uid', 'u', 'anniversaries', jsonb_build_object('a', jsonb_build_object('kind', 'birth', 'date', d::jsonb))) c;

-- contacts of other origin come back identical: flags, labels, metadata, vCard's properties
-- (but for nonsense under metadata.jscontact, which is left out)
SELECT to_jscontact(c), contact_identical(c, from_jscontact(to_jscontact(c))) FROM (VALUES
	('{}'::contact),
	('{"emails": [{"address": "a@example.org", "verified": false, "type": "work home"}], "phones": [{"number": "1", "extension": "a;b"}], "addresses": [{"city": "Bonn", "type": "boat"}], "birthday": "1980-13-01",
		"metadata": {"uid": 7, "role": ["x"], "formatted_name": "No parts", "jscontact": "text", "vcard": "text", "n": {"a": [1, null]}}}'),
	('{"first_name": "Ann", "metadata": {"formatted_name": "Ann", "role": " x ", "vcard": [["x-a", {"group": "item1"}, "text", "1"]], "jscontact": {"emails": 7, "name": {"full": 8}, "example.com:x": 1, "uid": "other"}}}')) AS v (c);
SELECT count(*), bool_and(contact_identical(c, from_jscontact(to_jscontact(c)))) FROM from_vcard(E'BEGIN:VCARD\nVERSION:3.0\nN:Roe;Ann;M,N;Dr.;Jr.\\, x\nFN:x\nORG:;D\nTEL:+1 555 0100 ext. 7\nTEL;TYPE=home,x-y:+1 555 0102;ext=9a\nitem1.URL:a.org\nitem1.X-ABLabel:Boat\nCATEGORIES:x\\,y,z\nNOTE:n\nNOTE:again\nX-A;P=1:1\nROLE:r\nUID:u\nGEO:1;2\nEND:VCARD') c;
-- vCard's properties cross over
SELECT to_vcard(from_jscontact('{"uid": "u", "name": {"full": "Ann Roe"}, "vCard": {"properties": [["x-a", {"group": "item1"}, "text", "1"]]}}')) LIKE '%item1.X-A:1%';

-- a contact without uid has one made of its content, which reading does not keep
SELECT to_jscontact('{"first_name": "Ann"}') ->> 'uid' = to_jscontact('{"first_name": "Ann"}') ->> 'uid', to_jscontact('{"first_name": "Ann"}') ->> 'uid' <> to_jscontact('{"first_name": "Bo"}') ->> 'uid',
	to_jscontact('{"first_name": "Ann"}') ->> 'uid' ~ '^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$';

-- provenance travels; of stamps that no longer fit, nothing is said
\set stamped '{"title": "Buyer", "emails": [{"address": "a@example.org"}], "_provenance": {"title": {"source": "crm", "as_of": "2024-01-02T03:04:05.000000Z", "changed_at": "-infinity", "flags": ["estimate"]}, "emails:a@example.org": {"source": "crm", "as_of": "2024-01-02T03:04:05.000000Z", "changed_at": "2024-01-01T00:00:00.000000Z", "flags": []}, "phones:+15550100": {"source": "app", "as_of": "2024-01-02T03:04:05.000000Z", "changed_at": "2024-01-01T00:00:00.000000Z", "flags": ["tombstone"]}}}'
SELECT to_jscontact(:'stamped'::contact) - 'uid', contact_identical(:'stamped'::contact, from_jscontact(to_jscontact(:'stamped'::contact)));
SELECT contact_provenance(from_jscontact(to_jscontact(:'stamped'::contact) - 'titles' - 'uid' || '{"phones": {"a": {"number": "+1 555 0100"}}}'));
SELECT from_jscontact('{"contactsync.dev:stamps": {"title": 1}, "titles": {"a": {"name": "x"}}}');
SELECT from_jscontact('{"contactsync.dev:stamps": {"nonsense": {}}}');

-- faults of structure, with their place
CREATE FUNCTION pg_temp.fault(card jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE d text;
BEGIN
	PERFORM from_jscontact(card);
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL;
	RETURN SQLSTATE || ' ' || SQLERRM || ' ' || coalesce(d, '');
END $$;
SELECT card, pg_temp.fault(card) FROM unnest(ARRAY['[]', '1', '{"@type": "Event"}', '{"@type": 1}', '{"version": 1}', '{"uid": {}}', '{"name": "Ann"}', '{"name": {"components": {}}}', '{"name": {"components": [1]}}', '{"name": {"components": [{"kind": "given"}]}}', '{"name": {"full": 1}}',
	'{"emails": []}', '{"emails": {"e1": "a@b.org"}}', '{"emails": {"e1": {}}}', '{"emails": {"e1": {"address": "a", "pref": "1"}}}', '{"emails": {"e1": {"address": "a", "pref": -1}}}', '{"emails": {"e1": {"address": "a", "pref": 1e400}}}', '{"emails": {"e1": {"address": "a", "contexts": ["work"]}}}', '{"emails": {"e1": {"address": "a", "contexts": {"work": 1}}}}',
	'{"phones": {"p": {"number": null}}}', '{"phones": {"p": {"number": "1", "features": "fax"}}}', '{"addresses": {"a": {"components": [{}]}}}', '{"addresses": {"a": {"components": [], "isOrdered": 1}}}', '{"organizations": {"o": {"units": [{}]}}}', '{"organizations": {"o": {"units": {}}}}', '{"titles": {"t": {"name": 1}}}', '{"notes": {"n": {}}}',
	'{"anniversaries": {"a": {"kind": "birth"}}}', '{"anniversaries": {"a": {"kind": "birth", "date": {"year": "x"}}}}', '{"keywords": ["x"]}', '{"keywords": {"x": 1}}', '{"media": {"m": {"kind": "photo", "uri": 1}}}', '{"links": {"l": {}}}', '{"onlineServices": {"s": 1}}', '{"contactsync.dev:metadata": 1}', '{"contactsync.dev:stamps": 1}',
	'{"emails": {"a \" very, very, very, very, very, very, long id": 1}}', '{"media": {"m": {"kind": "photo", "blobId": "x"}}, "keywords": {"x": false}, "phones": {"p": {"number": ""}}}']::jsonb[]) card;
SELECT from_jscontact(NULL) IS NULL;

-- hostile input: within the limits, and soon
SELECT pg_temp.fault(jsonb_build_object('x', repeat('y', 17000000)));
SELECT pg_temp.fault((repeat('{"a":', 40) || '1' || repeat('}', 40))::jsonb);
SELECT pg_temp.fault(jsonb_build_object('keywords', jsonb_object_agg('k' || i, true))) FROM generate_series(1, 11000) i;
SELECT length(c ->> 'middle_name') FROM from_jscontact((SELECT jsonb_build_object('name', jsonb_build_object('components', jsonb_agg('{"kind": "given2", "value": "x"}'::jsonb))) FROM generate_series(1, 20000))) c;
SELECT jsonb_array_length(c -> 'emails'), contact_identical(c, from_jscontact(to_jscontact(c))) FROM from_jscontact((SELECT jsonb_build_object('emails', jsonb_object_agg('e' || i, jsonb_build_object('address', i || '@example.org', 'label', 'x'))) FROM generate_series(1, 5000) i)) c;
SELECT jsonb_array_length(c -> 'urls'), contact_identical(c, from_jscontact(to_jscontact(c))) FROM from_jscontact((SELECT jsonb_build_object('links', jsonb_object_agg('l' || i, l), 'onlineServices', jsonb_object_agg('s' || i, l)) FROM generate_series(1, 4000) i, jsonb_build_object('uri', 'http://example.org/' || i) l)) c;
-- metadata as deep as a contact may have it comes back; what a card nests deeper is refused
SELECT n, key, contact_identical(c, from_jscontact(to_jscontact(c))) AS same
FROM unnest(ARRAY[31, 32]) n, unnest(ARRAY['m', 'vcard', 'jscontact']) key, LATERAL (SELECT jsonb_build_object('metadata', jsonb_build_object(key,
	(repeat('{"a":', n) || '"[{\"[{"' || repeat('}', n))::jsonb))::contact AS c) x ORDER BY n, key;
SELECT contact_identical(c, from_jscontact(to_jscontact(c))) AS same FROM CAST(jsonb_build_object('metadata', jsonb_build_object('vcard', (repeat('[', 32) || '1' || repeat(']', 32))::jsonb)) AS contact) c;
SELECT n, pg_temp.fault(jsonb_build_object('contactsync.dev:metadata', jsonb_build_object('m', deep))) AS metadata, pg_temp.fault(jsonb_build_object('x', deep)) AS other
FROM unnest(ARRAY[31, 32, 33]) n, LATERAL (SELECT (repeat('[', n) || '1' || repeat(']', n))::jsonb AS deep) x;
