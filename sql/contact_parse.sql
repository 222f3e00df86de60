-- Text is read to the same contact on the short way and by way of jsonb.
SET search_path = contactsync, public;

CREATE TEMP TABLE texts (n serial, t text);
INSERT INTO texts (t) VALUES
 ('{}'), (E' {\n}\t\r'), ('{"title":"x"}'), ('{"title": null, "note": "", "company": "  "}'),
 ('{"title": "x", "title": "y"}'), ('{"tags": ["a"], "tags": null}'),
 ('{"emails": ["B@X.org", {"address": "a@x.org", "type": "Work", "verified": true, "primary": true}, {"address": "b@x.org", "primary": true, "verified": false}]}'),
 ('{"emails": [{"address": null, "type": "x"}, {}, "", "  ", {"address": "a@x.org", "verified": null, "primary": false}], "urls": [], "phones": null}'),
 ('{"emails": [{"address": "a@x.org", "address": "b@x.org"}]}'), ('{"phones": [{"number": "+1 650 253 0000 ext 7"}, {"number": "+16502530001", "extension": "x", "primary": true}, "tel:5550100"]}'),
 ('{"addresses": [{"street": "1 Main\nSt", "city": "S", "region": null, "type": "HOME"}, {"street": "1 main st"}, {"street": ""}]}'),
 ('{"urls": ["HTTP://A.org/X", {"url": "http://a.org/X", "type": "t"}], "tags": ["b", "B", "a", "ü", "Ü"]}'),
 ('{"note": "a\"b\\c\/d\ne\r\tf\b\fg", "first_name": "\u00e9\u0301", "last_name": "\\"}'), ('{"note": "Zoe\u0308 \ud83d\ude00", "title": "Zoë"}'),
 ('{"metadata": {"a": "x", "b": 7, "c": -12, "d": true, "e": false, "f": 0, "g": null, "h": ""}}'), ('{"metadata": {"a": "x", "b": 7, "c": -12, "d": true, "e": false, "f": 0}}'),
 ('{"metadata": {"a": 1.50, "b": 1e3, "c": -0, "d": [], "e": {"z": 1, "y": [2, null]}}}'), ('{"metadata": {"b": "x\ty", "": 1}}'), ('{"metadata": {"a": 1, "b": 2, "a": 3}}'),
 ('{"metadata": {"z": 1, "aa": 123456789012345678, "a": 1234567890123456789012}, "unknown": "x", "z": 2}'), ('{"metadata": null}'), ('{"metadata": {}}'), ('{"metadata": {"a\"b": "x"}}'),
 ('{"title": "x", "_provenance": {"title": {"source": "s", "as_of": "infinity", "changed_at": "-infinity", "flags": []}}}');
SELECT n, t::contact AS c, contact_identical(t::contact, t::jsonb::contact) AS same FROM texts ORDER BY n;
SELECT count(*) AS again, bool_and(contact_identical(t::contact, t::contact::text::contact)) AS same FROM texts;

-- and what is wrong is wrong on both
CREATE FUNCTION pg_temp.fault(t text, by_jsonb boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	c contact;
BEGIN
	IF by_jsonb THEN
		c := t::jsonb::contact;
	ELSE
		c := t::contact;
	END IF;
	RETURN 'none: ' || c::text;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN concat_ws(' ', SQLSTATE, SQLERRM, detail);
END $$;
SELECT t, left(pg_temp.fault(t, false), 5) AS fault, pg_temp.fault(t, false) = pg_temp.fault(t, true) AS same FROM unnest(ARRAY[
	'', ' ', '{', '{}x', '{} {}', '[]', '"x"', '{"title"}', '{"title": }', '{"title": "x",}', '{"title": "x" "note": "y"}', '{"title": "x', '{"title": "x\', '{"title": "x\"}',
	'{"title": "\q"}', '{"title": 7}', '{"title": nul}', '{"title": nulll}', '{"emails": {"address": "x"}}', '{"emails": [7]}', '{"emails": ["a@b.org",]}', '{"emails": ["a@b.org"', '{"emails": [{"x": "y"}]}', '{"tags": [{}]}',
	'{"addresses": ["x"]}', '{"urls": [{"url": "x", "primary": true}]}', '{"emails": [{"primary": "x"}]}', '{"emails": [{"primary": truex}]}', '{"metadata": []}', '{"metadata": {"a": 01}}', '{"metadata": {"a": -}}', '{"metadata": {"a": 1x}}', '{"metadata": {"a": tru}}',
	'{"metadata": {"a": truely}}', '{"metadata": {"a" 1}}', E'{"title": "a\nb"}', E'{"title": "a\\\nb"}']) t;
