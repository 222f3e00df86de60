-- vCards: read as real software writes them, written so that they read back.
SET search_path = contactsync, public;
SET client_min_messages = warning;
\pset format unaligned
\pset tuples_only on

-- a card of lines, as a function, so that tests can say what its line ends are
CREATE FUNCTION pg_temp.card(VARIADIC lines text[]) RETURNS text LANGUAGE sql AS
	$$SELECT 'BEGIN:VCARD' || E'\r\n' || array_to_string(lines, E'\r\n') || E'\r\nEND:VCARD\r\n'$$;

-- the three versions say the same thing in three ways
SELECT from_vcard(pg_temp.card('VERSION:2.1', 'N:Okafor;Zoe;Ada;Dr.;', 'FN:Zoe Okafor', 'ORG:Initrode;Sales;East', 'TITLE:Buyer',
	'TEL;CELL;PREF:+1 555 0100', 'TEL;WORK;FAX:+1 555 0101', 'EMAIL;INTERNET;HOME:zoe@EXAMPLE.org',
	'ADR;HOME;POSTAL:PO 7;Floor 2;1 Main St;Springfield;IL;62701;USA', 'BDAY:19800229', 'URL:http://example.org/'));
SELECT from_vcard(pg_temp.card('VERSION:3.0', 'N:Okafor;Zoe;Ada;Dr.;', 'FN:Zoe Okafor', 'ORG:Initrode;Sales;East', 'TITLE:Buyer',
	'TEL;TYPE=CELL,PREF:+1 555 0100', 'TEL;TYPE=FAX;TYPE=WORK:+1 555 0101', 'EMAIL;TYPE=INTERNET,HOME:zoe@EXAMPLE.org',
	'ADR;TYPE=home,postal:PO 7;Floor 2;1 Main St;Springfield;IL;62701;USA', 'BDAY;VALUE=date:1980-02-29T00:00:00Z', 'URL:http\://example.org/'));
SELECT from_vcard(pg_temp.card('VERSION:4.0', 'N:Okafor;Zoe;Ada;Dr.;', 'FN:Zoe Okafor', 'ORG:Initrode;Sales;East', 'TITLE:Buyer',
	'TEL;VALUE=uri;TYPE="cell,voice";PREF=1:tel:+1-555-0100;ext=12', 'TEL;TYPE="work,fax":+1 555 0101', 'EMAIL;TYPE=home:mailto:zoe@EXAMPLE.org',
	'ADR;TYPE=home;LABEL="1 Main St: here":PO 7;Floor 2;1 Main St;Springfield;IL;62701;USA', 'BDAY:--0229', 'URL:http://example.org/'));

-- names: FN where N has none, but not where it repeats the company or an address
SELECT from_vcard(pg_temp.card('FN:Ada King Lovelace', 'N:;;;;')), from_vcard(pg_temp.card('FN:Cher'));
SELECT from_vcard(pg_temp.card('FN:Initech', 'ORG:Initech')), from_vcard(pg_temp.card('FN:a@b.org', 'EMAIL:a@b.org'));
SELECT from_vcard(pg_temp.card('FN:The Boss', 'N:Roe;Ann')), from_vcard(pg_temp.card('FN:Ann Roe', 'N:Roe;Ann'));

-- folds, also inside a character; line ends; byte order marks; UTF-16
SELECT from_vcard('\xefbbbf424547494e3a56434152440d0a56455253494f4e3a332e300d0a464e3a5ac30d0a20ab0d0a4e4f54453a6f6e650d0a092074776f0d0a454e443a56434152440d0a'::bytea);
SELECT from_vcard(replace(pg_temp.card('N:Roe;Ann', 'NOTE:x', ' y'), E'\r\n', E'\r')), from_vcard(replace(pg_temp.card('N:Roe;Ann', 'NOTE:x', ' y'), E'\r\n', E'\n'));
SELECT from_vcard(replace(pg_temp.card('N:Roe;Ann', 'NOTE:x', ' y'), E'\r\n', E'\r\r\n'));
SELECT from_vcard(decode('fffe' || string_agg(encode(substr(b, i, 1), 'hex') || '00', '' ORDER BY i), 'hex'))
FROM convert_to(pg_temp.card('N:Roe;Ann'), 'UTF8') b, generate_series(1, length(b)) i;

-- quoted-printable in any version, soft breaks, charsets, and none where one is due
SELECT from_vcard(pg_temp.card('VERSION:3.0', 'N;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:=C3=89lan;No=', '=C3=ABl', 'NOTE;QUOTED-PRINTABLE:a=0D=0Ab=3D'));
SELECT from_vcard(decode(replace(replace(encode(convert_to(pg_temp.card('N;CHARSET=windows-1251:@1', 'TITLE;CHARSET=foobar:caf@2'), 'UTF8'), 'hex'), '4031', 'cce8f0'), '4032', 'e920'), 'hex'));
SELECT from_vcard(pg_temp.card('N;CHARSET=ISO-8859-1;ENCODING=QUOTED-PRINTABLE:M=FCller', 'NICKNAME;ENCODING=B:Wm/Dqw=='));

-- groups and labels; what a label was used for is gone, what has no field stays
SELECT from_vcard(pg_temp.card('N:Roe;Ann', 'item1.TEL;type=pref:5550100', 'item1.X-ABLabel:_$!<Mobile>!$_', 'ITEM2.URL:http://a.org', 'item2.X-ABLABEL:Boat house',
	'item3.X-ABDATE:2001-02-03', 'item3.X-ABLabel:_$!<Anniversary>!$_'));

-- escapes, RFC 6868, metadata and the bag
SELECT from_vcard(pg_temp.card('N:Roe\;x;Ann\, B', 'NOTE:a\nb\Nc\,d\;e\\f\:g\qh', 'CATEGORIES:vip,a\,b', 'ROLE:Boss', 'X-BILLING-CONTACT:Doe\, John', 'GEO:37.3;-122.1',
	'X-TWO:1', 'X-TWO:2', 'X-P;LABEL="say ^''hi^'' ^^ ^n";TYPE=a,b:v', 'X-S:a;b,c', 'TITLE:one', 'TITLE:two', 'REV:20240102T030405Z', 'PRODID:x', 'UID:u-1'));
SELECT from_vcard(pg_temp.card('N:Roe', 'PHOTO;ENCODING=b;TYPE=PNG:iVBO', ' Rw0K')), from_vcard(pg_temp.card('N:Roe', 'PHOTO;BASE64:', 'R0lGODlh', '', 'TITLE:x'));
SELECT from_vcard(pg_temp.card('N:Roe', 'PHOTO;VALUE=uri:http://x.org/a.png', 'PHOTO:data:image/gif;base64,AAAA', 'BDAY;X-APPLE-OMIT-YEAR=1604:1604-03-04'));
SELECT from_vcard(pg_temp.card('N:Roe', 'BDAY:' || d)) -> 'birthday' FROM unnest('{1980-1-2,198013,1980-13-01,1980,---12,circa 1800,1980-01-02 10:00:00}'::text[]) d;

-- whatever REV, VERSION and bad lines say, the card is read
SELECT count(*) FROM unnest('{"",7,20240102,2024-01-02T03:04:05.678+0130,2024-01-02T03:04:05Z(1),9999999,99999999T999999Z,T,-,20240102T030405-99:99}'::text[]) r,
	from_vcard(pg_temp.card('VERSION:' || r, 'REV:' || r, 'N:Roe', 'no colon', ':', '.:', ';:x', 'A B:c', 'TEL;TYPE="home:1'));

-- several cards, garbage between them, no END, AGENT with a card inside
SELECT from_vcard('garbage' || E'\n' || pg_temp.card('N:One') || E'junk: 1\nBEGIN:VCARD\nN:Two\n' || pg_temp.card('N:Three', 'AGENT:', 'BEGIN:VCARD', 'N:Inner', 'END:VCARD', 'TITLE:t')
	|| pg_temp.card('N:Four', 'AGENT:BEGIN:VCARD\nN:Inner\nEND:VCARD\n') || E'begin:vcard\nN:Five');
SELECT count(*) FROM unnest('{"","   ",no card}'::text[]) t, from_vcard(t);
SELECT count(*) FROM from_vcard(''::bytea);

-- hostile input is read as far as the caps go, soon and without error
SET client_min_messages = notice;
SELECT c FROM from_vcard(E'BEGIN:VCARD\nN:Roe\nNOTE:' || repeat('x', 2000000) || E'\nTITLE:t\nEND:VCARD\n' || pg_temp.card('N:Next')) c;
SELECT jsonb_array_length(c -> 'metadata' -> 'vcard'), contact_identical(c, c::text::contact) FROM from_vcard(E'BEGIN:VCARD\n' || repeat(E'X-A:1\n', 100000)) c;
SELECT jsonb_array_length(c -> 'tags') BETWEEN 1000 AND 10000, contact_identical(c, c::text::contact)
FROM (SELECT string_agg(i::text, ',') AS t FROM generate_series(1, 12000) i) s, from_vcard(pg_temp.card('CATEGORIES:' || t)) c;
SELECT c FROM from_vcard(E'BEGIN:VCARD\nN:Roe\n' || repeat(E'AGENT:\nBEGIN:VCARD\n', 100000)) c;
SELECT c FROM from_vcard(E'BEGIN:VCARD\nNOTE:' || repeat('x', 70000) || E'\nN:Ro') c;
SELECT c FROM from_vcard('\x424547494e3a56434152440a4e3a526f00650a4e4f54453b51554f5445442d5052494e5441424c453a613d3030620a0000'::bytea) c;
SET client_min_messages = warning;
SELECT from_vcard(repeat(' ', 16 * 1024 * 1024 + 1));

-- written: folded at 75 octets between characters, escaped, typed
SELECT replace(to_vcard(c, v), E'\r', '') FROM (VALUES ('4.0'), ('3.0')) v (v), (SELECT
	'{"first_name": "Ann", "last_name": "Roe", "company": "A; B, C", "birthday": "--02-29", "note": "é ééééééééééééééééééééééééééééééééééééééééé\nend",
	"phones": [{"number": "+15550100", "extension": "12", "type": "mobile", "primary": true}, {"number": "+15550101", "type": "Ann''s boat"}],
	"photo": "data:image/png;base64,AAAA", "tags": ["a,b", "c"],
	"metadata": {"billing_contact": "Doe, J", "geo": "1;2", "n": 7, "uid": "u1", "vcard": [["x-a", {"group": "item1", "type": ["a", "b:c"]}, "unknown", "1;2"], ["end", {}, "text", "VCARD"], 5]}}'::contact AS c) w;
SELECT replace(to_vcard('{}'), E'\r', '');
SELECT to_vcard('{}', '2.1');

-- and read back equal, in both versions, whatever was read
WITH cards AS (
	SELECT c FROM from_vcard(pg_temp.card('N:Roe;Ann;M,N;Dr.;Jr.\, x', 'FN:x', 'NICKNAME:a,b', 'ORG:;D', 'TEL:+1 555 0100 ext. 7', 'TEL;TYPE=home,x-y:+1 555 0102;ext=9a', 'item1.TEL:1', 'item1.X-ABLabel:voice',
		'item7.EMAIL;PREF=1:a@b.org', 'item7.X-ABLabel:My, "own"; \\ label', 'item7.X-ABADR:us', 'URL:http://a.org/?a,b;c', 'CATEGORIES:x\,y,z', 'NOTE:  l1\n\nl2 \\n ', 'NOTE:again',
		'PHOTO;ENCODING=b;TYPE=GIF:R0lGODlh', 'BDAY:19800102', 'KEY;ENCODING=b:AAAA', 'X-A;P=^n"^:1', 'X-B:\n', 'X-C:  two  ', 'X-D;X="a,b",c:\a\,;', 'X_E:1', 'AGENT;VALUE=uri:urn:x', 'UID:u'))  c
	UNION ALL SELECT from_vcard(pg_temp.card('ORG:Acme')) UNION ALL SELECT from_vcard(pg_temp.card('TEL:1')) UNION ALL SELECT from_vcard(pg_temp.card('NOTE:n', 'BDAY:1980-02')) UNION ALL SELECT from_vcard(pg_temp.card(VARIADIC '{}')))
SELECT v, count(*), count(*) FILTER (WHERE c = from_vcard) AS equal,
	count(*) FILTER (WHERE EXISTS (SELECT FROM regexp_split_to_table(to_vcard(c, v), E'\r\n') l WHERE octet_length(l) > 75)) AS too_long
FROM cards, unnest('{3.0,4.0}'::text[]) v, from_vcard(to_vcard(c, v)) GROUP BY v ORDER BY v;
