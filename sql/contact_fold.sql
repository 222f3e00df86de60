-- Keys know no case, in any script and any locale; values keep theirs.
SET search_path = contactsync, public;

-- tags are the same in capitals, the first spelling stays
SELECT t AS tags, (jsonb_build_object('tags', t)::contact ->> 'tags') AS kept FROM unnest(ARRAY[
	'["Straße", "STRASSE", "strasse"]', '["ΟΔΟΣ", "οδος", "οδοσ"]', '["ПРИВЕТ", "Привет"]', '["Œuvre", "ŒUVRE"]', '["ﬁn", "FIN"]', '["ǰ", "J̌"]', '["Ǆ", "ǅ", "ǆ"]', '["𐐀", "𐐨"]',
	'["İ", "i", "ı", "I"]', '["é", "e"]', '["ΐ", "ΐ", "Ϊ́"]']::jsonb[]) t;
-- addresses too
SELECT jsonb_array_length('{"addresses": [{"street": "Große Straße 7", "city": "Zürich"}, {"street": "GROSSE  STRASSE 7", "city": "ZÜRICH"}]}'::contact -> 'addresses') AS addresses;

-- mail addresses that differ in case only are one; what has other letters is another one
SELECT a AS addresses, contact_keys(jsonb_build_object('emails', a)::contact) AS keys FROM unnest(ARRAY[
	'["Ünal@Example.com", "ÜNAL@example.com"]', '["ПОЧТА@x.org", "почта@x.org"]', '["STRAẞE@x.org", "straße@x.org", "strasse@x.org"]', '["ſam@x.org", "sam@x.org"]', '["İ@x.org", "i@x.org"]', '["J̌@x.org", "ǰ@x.org"]']::jsonb[]) a;
-- small letters that take more room than their capitals: no key may be longer than an address
SELECT n, cardinality(contact_keys(c)) AS keys, c && contact_keys(c) AS found, octet_length((contact_keys(c))[1]) AS octets, contact_identical(c, c::text::contact) AS same
FROM unnest(ARRAY[20, 21, 22, 32]) n, CAST(jsonb_build_object('emails', jsonb_build_array(repeat('Ⱥ', n) || '@x.org')) AS contact) c ORDER BY n;
-- the spelling is kept, and so is provenance by the folded key
SELECT '{"emails": ["Ünal@Example.com"], "tags": ["Ärzte"], "_provenance": {"emails:ünal@example.com": {"source": "s", "as_of": "infinity", "changed_at": "infinity", "flags": []}, "tags:ärzte": {"source": "s", "as_of": "infinity", "changed_at": "infinity", "flags": []}}}'::contact;
SELECT '{"emails": ["Ünal@Example.com"]}'::contact && ARRAY['email:ünal@example.com'] AS folded, '{"emails": ["Ünal@Example.com"]}'::contact && ARRAY['email:Ünal@example.com'] AS as_spelled;
