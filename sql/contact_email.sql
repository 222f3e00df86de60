-- Mail addresses: what is one, its canonical form, and how a contact keeps it.
SET search_path = contactsync, public;
\pset null '(null)'

-- an address as it stands: the case of the local part is kept, the domain's is not
SELECT a, email_status(a), normalize_email(a) FROM unnest(ARRAY[
	'ann@example.org', 'Ann.Lee@EXAMPLE.Org', 'a+b=c/d@x.org', '{it''s|a#$%&*!}?^_`~@x.org',
	'1@2.org', '-@x-y.org', 'a@xn--bcher-kva.example', 'A@XN--BCHER-KVA.example',
	'', ' ', 'ann', '@', 'ann@', '@x.org', 'ann.x.org', 'a@b@c.org', 'a..b@x.org', '.a@x.org', 'a.@x.org',
	'a b@x.org', 'a@x .org', 'a@x..org', 'a@.x.org', 'a@-x.org', 'a@x-.org', 'a@x.-', 'a@b_c.org', 'a@x^y.org',
	'a(at)x.org', 'a,b@x.org', 'a:b@x.org', 'a\@b@x.org', 'a@b@x.org, c@d.org', E'a\u0007@x.org', E'a@x.org\u007f']) a;

-- quoted local parts: quotes that are not needed are none; obsolete forms are no addresses
SELECT a, email_status(a), normalize_email(a) FROM unnest(ARRAY[
	'"ann"@x.org', '"ann.lee"@x.org', '"a\n\n"@x.org', '"ann lee"@X.org', '"a\ b"@x.org', '"a@b"@x.org', '"a\"b\\c"@x.org', '""@x.org',
	'"ann"lee@x.org', 'ann"lee"@x.org', '"ann".lee@x.org', '"ann""lee"@x.org', '"ann@x.org', '"ann\"@x.org', E'"a\nb"@x.org', E'"\u0001"@x.org']) a;

-- comments and folding are rejected, wherever they stand
SELECT a, email_status(a), normalize_email(a) FROM unnest(ARRAY[
	'(hi)ann@x.org', 'ann(hi)@x.org', 'ann@(hi)x.org', 'ann@x.org(hi)', 'ann @x.org', 'ann@ x.org', E'ann\r\n @x.org', 'ann. lee@x.org']) a;

-- what is correct, but hardly anybody's address
SELECT a, email_status(a), normalize_email(a) FROM unnest(ARRAY[
	'root@localhost', 'a@1.2.3.4', 'a@x.123', 'a@[192.0.2.1]', 'a@[192.000.002.01]', 'a@[IPv6:2001:DB8::1]', 'a@[ipv6:2001:db8:0:0:0:0:0:1]',
	'a@[IPv6:::ffff:192.0.2.1]', 'a@[IPv6:::]', 'a@[IPv6:1:2:3:4:5:6:7:8]', 'a@[IPv6:1:2:3:4:5:6:192.0.2.1]']) a;
SELECT a, email_status(a), normalize_email(a) FROM unnest(ARRAY[
	'a@[192.0.2]', 'a@[192.0.2.256]', 'a@[192.0.2.1.1]', 'a@[192.0.2.+1]', 'a@[ 192.0.2.1]', 'a@[2001:db8::1]', 'a@[IPv6:1:2:3:4:5:6:7]', 'a@[IPv6:1:2:3:4:5:6:7:8:9]',
	'a@[IPv6:1:2:3:4:5:6:7::]', 'a@[IPv6:1::2::3]', 'a@[IPv6::1:2]', 'a@[IPv6:12345::]', 'a@[IPv6:g::]', 'a@[IPv6:1::192.0.2.256]', 'a@[IPv6:fe80::1%eth0]',
	'a@[tag:text]', 'a@[]', 'a@[192.0.2.1', 'a@[192.0.2.1].org', 'a@x.[192.0.2.1]']) a;

-- limits, in octets: 64 of local part, 63 of label, 254 of address
SELECT what, email_status(a), length(normalize_email(a)) FROM (VALUES
	('local 64', repeat('a', 64) || '@x.org'), ('local 65', repeat('a', 65) || '@x.org'),
	('local 64 of two octets', repeat('é', 32) || '@x.org'), ('local 66 of two octets', repeat('é', 33) || '@x.org'),
	('quoted 64', '"' || repeat(' ', 62) || '"@x.org'), ('quoted 65', '"' || repeat(' ', 63) || '"@x.org'),
	('quoted 66 that need no quotes', '"' || repeat('a', 64) || '"@x.org'),
	('label 63', 'a@' || repeat('x', 63) || '.org'), ('label 64', 'a@' || repeat('x', 64) || '.org'),
	('A-label 63', 'a@' || repeat('x', 55) || 'é.org'), ('A-label 64', 'a@' || repeat('x', 56) || 'é.org'),
	('address 254', repeat('a', 64) || '@' || repeat(repeat('x', 61) || '.', 3) || 'org'),
	('address 254, longer as spelled', 'a@' || repeat(repeat('日', 20) || '.', 5) || 'org'),
	('address 255', repeat('a', 64) || '@' || repeat(repeat('x', 61) || '.', 3) || 'info'),
	('NFC counts', repeat(E'e\u0301', 32) || '@x.org')) v (what, a);

-- UTF-8: local parts in NFC, domains as A-labels; what is invisible is not in a local part
-- releases differ in how wide they take a character that nobody sees
\pset format unaligned
SELECT a, email_status(a), normalize_email(a) FROM unnest(ARRAY[
	'josé@x.org', E'jose\u0301@x.org', '用户@例え.テスト', 'a@BÜCHER.example', 'a@faß.de', 'a@fass.de', 'a@ΣΊΣΥΦΟΣ.gr',
	E'a@ex\u200Bam\u00ADple.com', 'a@bücher.XN--BCHER-KVA.de', '＠@x.org', E'\u0646\u0627\u0645\u200C\u0647\u0627@x.org', 'ᏚᎢᎵᎬᎢᎬ@x.org']) a;
\pset format aligned
SELECT a, email_status(a), normalize_email(a) FROM unnest(ARRAY[
	'ann＠x.org', 'a@bü_cher.de', 'a@-bücher.de', 'a@bücher-.de', 'a@bü..de', E'a@\u0301x.org', 'a@é.xn--0', 'a@é.xn--zzzzzzzz99999999', 'a@é c.org']) a;
SELECT what, email_status(a) FROM (VALUES
	('C1 control', E'a\u0085b@x.org'), ('no-break space', E'a\u00A0b@x.org'), ('line separator', E'a\u2028b@x.org'), ('right-to-left override', E'a\u202Eb@x.org'),
	('right-to-left mark', E'\u200Fann@x.org'), ('zero width space', E'a\u200Bb@x.org'), ('byte order mark inside', E'a\uFEFFb@x.org'), ('private use', E'a\uE000@x.org'),
	('non-character', E'a\uFDD0@x.org'), ('non-character of plane 1', E'a\U0001FFFF@x.org'), ('tag', E'a\U000E0041@x.org'), ('not in quotes either', E'"a\u202E b"@x.org'),
	('mixed directions in a label', E'a@\u05D0a.org'), ('mixed scripts in a label', E'a@p\u0430ypal.com'), ('override in a domain', E'a@x\u202Ey.org')) v (what, a);

-- what stands around an address is taken off; it is none as it stands
SELECT a, email_status(a), normalize_email(a) FROM unnest(ARRAY[
	' ann@x.org ', E'\tann@x.org\r\n', E'\u00A0ann@x.org\u3000', 'ann@x.org,', 'ann@x.org ; ', 'ann@x.org.', 'mailto:Ann@X.org', 'MAILTO: mailto:ann@x.org',
	'mailto:ann@x.org?subject=hi&cc=bob@y.org', 'mailto:a%2Bb%40c@x.org', 'mailto:"a%20b"@x.org', 'mailto:%C3%A9@x.org', 'mailto:%C3@x.org', 'mailto:a%0Ab@x.org', '<ann@x.org>', '<mailto:ann@x.org>', 'Ann Lee <ann@x.org>',
	'"Lee, Ann" <ann@x.org>;', '"a<b" <"c<d"@x.org>', 'bob@y.org <ann@x.org>', '6" <ann@x.org>', '"ann@x.org"', '''ann@x.org''', '''"<ann@x.org>,"''', 'ann@bücher。de', 'ann@x．org', 'ann@x｡org', 'ann@ＥＸＡＭＰＬＥ.com', '"ann lee"@ｘ.org',
	'<ann@x.org', 'ann@x.org>', '<ann@x.org> !', '<>', '<<>>', 'Ann Lee <>', 'Ann Lee ann@x.org', 'mailto:', 'mailto:ann', 'ann@x.org, bob@y.org', 'ann@x.org bob@y.org', '"ann@x.org', '","', '''']) a;

-- hostile input costs little and is no address
SELECT what, length(a), email_status(a), normalize_email(a) FROM (VALUES
	('a@ of 1 MB', repeat('a@', 524288)), ('quotes', repeat('"', 10000)), ('quotes around', repeat('"', 500) || 'a@x.org' || repeat('"', 500)),
	('comments', repeat('(', 100000) || 'a@x.org' || repeat(')', 100000)), ('brackets', repeat('<', 10000) || 'a@x.org' || repeat('>', 10000)),
	('backslashes', '"' || repeat('\', 1021) || '@x.org'), ('schemes', repeat('mailto:', 140) || 'a@x.org'), ('schemes of 1 MB', repeat('mailto:', 150000)),
	('dots', repeat('.', 100000) || '@' || repeat('.', 100000)), ('labels', 'a@' || repeat('x.', 100000) || 'org'), ('commas', 'a@x.org' || repeat(',', 1000)),
	('combining marks', 'a' || repeat(E'\u0301', 100000) || '@x.org'), ('marks in a domain', 'a@a' || repeat(E'\u0301', 400) || '.org'), ('A-labels', 'a@é.' || repeat('xn--a.', 100) || 'org'),
	('percents', 'mailto:' || repeat('%25', 300) || '@x.org')) v (what, a);

-- canonical forms are their own, whatever they were made of
SELECT count(*), count(*) FILTER (WHERE normalize_email(n) IS DISTINCT FROM n OR email_status(n) NOT IN ('valid', 'unusual')) AS moved
FROM (SELECT normalize_email(before || local || '@' || domain || after) AS n FROM
	unnest(ARRAY['', ' ', 'mailto:', 'X <', '"', '''']) before, unnest(ARRAY['a', 'A.b+c', '"a"', '"a b"', '"\"\\\a"', '"."', '""', 'é', E'e\u0301', E'"<\u0338"', '"mailto:a"', '"<b>"', E'\u1FEF', E'\u212A']) local,
	unnest(ARRAY['X.org', 'x.org.', 'é.org', E'e\u0301.org', 'localhost', '[192.0.2.01]', '[ipv6:0:0:1::]', '1.1', '日本。jp']) domain, unnest(ARRAY['', ' ', '>', ',', '?a=b', '"', '''']) after) s
WHERE n IS NOT NULL;

-- provider aliases, only when asked for
SELECT a, normalize_email(a) AS kept, normalize_email(a, true) AS resolved, normalize_email(normalize_email(a, true), true) = normalize_email(a, true) AS stable FROM unnest(ARRAY[
	'J.o.hn+news@GoogleMail.com', 'john@gmail.com', '+john@gmail.com', 'a.b+c@outlook.com', 'a.b+c@x.org', '"j.o hn+x"@gmail.com', 'john+@gmail.com', 'nobody']) a;

-- strict, and no plan need compute it twice
SELECT proname, provolatile, proparallel, proisstrict, obj_description(oid, 'pg_proc') IS NOT NULL AS commented
FROM pg_proc WHERE proname IN ('normalize_email', 'email_status') ORDER BY proname;
SELECT normalize_email(NULL), normalize_email('a@x.org', NULL), email_status(NULL);

-- a contact keeps an address in canonical form, and what is none as it was spelled
SELECT c, contact_keys(c), contact_identical(c, c::text::contact) AS fixed FROM (SELECT jsonb_build_object('emails', jsonb_build_array(a))::contact AS c FROM unnest(ARRAY[
	'Ann Lee <Ann@BÜCHER.example>', 'mailto:ANN@x.org', '"ann"@x.org', 'root@localhost', ' n/a ', 'mailto:n/a', 'ann@x.org, bob@y.org', 'a..b@x.org', E'jose\u0301@x', 'J.Doe+a@GoogleMail.com']) a) s;
-- two spellings are one element; the key folds what the spelling keeps
SELECT '{"emails": ["ANN@x.org", "mailto:ann@X.org.", "<Ann@x.org>", {"address": "\"ann\"@x.org", "type": "work"}, "ann @x.org"]}'::contact;
SELECT contact_keys('{"emails": ["a@faß.de", "a@fass.de", "a@XN--FA-HIA.de", "É@x.org", "é@x.org"]}');
