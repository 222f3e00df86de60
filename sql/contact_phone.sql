-- Telephone numbers: what is read as E.164, with what extension, and what is not.
SET search_path = contactsync, public;

SELECT phone_metadata_version() ~ '^\d+\.\d+\.\d+$' AS version;

CREATE FUNCTION pg_temp.show(numbers text[], OUT number text, OUT region text, OUT e164 text, OUT ext text, OUT status text)
	RETURNS SETOF record LANGUAGE sql AS $$
	SELECT split_part(n, '|', 1), nullif(split_part(n, '|', 2), ''), normalize_phone(split_part(n, '|', 1), nullif(split_part(n, '|', 2), '')),
		phone_extension(split_part(n, '|', 1), nullif(split_part(n, '|', 2), '')),
		phone_status(split_part(n, '|', 1), nullif(split_part(n, '|', 2), ''))
	FROM unnest(numbers) WITH ORDINALITY AS u (n, i) ORDER BY i
$$;

-- international form needs no region, and a region does not change it
SELECT * FROM pg_temp.show(ARRAY['+442079460958', '+44 20 7946 0958', '+44-20-7946-0958|US', '++44.20.7946.0958', '+44/20/79460958|DE',
	'[+44 20] 7946.0958', '+800 1234 5678', '+1 650 253 0000|GB']);

-- national form is that of the region; without one it says nothing
SELECT * FROM pg_temp.show(ARRAY['020 7946 0958|GB', '020 7946 0958|gb', '020 7946 0958', '020 7946 0958|ZZ', '020 7946 0958|US',
	'(650) 253-0000|US', '1 650 253 0000|US', '16502530000|CA', '442079460958|GB', '8 (301) 123-45-64|RU', '06 20 123 4567|HU']);

-- a prefix that becomes something else: mobile 15 in Argentina, carriers in Brazil, local numbers of the Bahamas
SELECT * FROM pg_temp.show(ARRAY['011 15-2345-6789|AR', '0 15 11 2345-6789|BR', '0 11 2345-6789|BR', '302 1234|BS', '88 60 10|SM']);

-- zeros that belong to the number, and trunk zeros that do not
SELECT * FROM pg_temp.show(ARRAY['02 1234 5678|IT', '+39 02 1234 5678', '+39 (0)2 1234 5678', '+44 (0)20 7946 0958', '+44 020 7946 0958', '+225 01 23 45 67 89']);

-- calls abroad, as each region dials them
SELECT * FROM pg_temp.show(ARRAY['0044 20 7946 0958|DE', '011 44 20 7946 0958|US', '00 44 20 7946 0958|US', '0011 44 20 7946 0958|AU',
	'8 10 44 20 7946 0958|RU', '00 15 44 20 7946 0958|BR', '+0044 20 7946 0958|DE', '0044 20 7946 0958']);

-- digits of all scripts, wide forms, blanks and marks that nobody sees
SELECT e164, ext, status FROM pg_temp.show(ARRAY[U&'\FF0B\FF14\FF14 \FF12\FF10\FF0D\FF17\FF19\FF14\FF16\FF0D\FF10\FF19\FF15\FF18',
	U&'\0660\0661\0662\0663 \0664\0665\0666\0667\0668\0669\0660|DE', U&'+\06F4\06F4 \06F2\06F0 \06F7\06F9\06F4\06F6 \06F0\06F9\06F5\06F8',
	U&'+\096A\096A \0968\0966 \096D\096F\096A\096C \0966\096F\096B\096E', U&'+44\00A020\00A07946\00A00958', U&'+44\200B20\200B7946\200B0958',
	U&'\202A+44 20 7946 0958\202C', U&'+44 20\200E 7946\2066 0958', U&'+44\201320\20147946\22120958', U&'+44 20 7946 0958 \FF58\FF11\FF12']);

-- letters are the digits on their keys, if there are enough of them
SELECT * FROM pg_temp.show(ARRAY['1-800-FLOWERS|US', '+1 800 GOOG-411', '1800 FLOWERS|GB', '0207 CALL ME|GB', '020 7946 0958 A|GB']);

-- URIs and other wrappings
SELECT * FROM pg_temp.show(ARRAY['tel:+44-20-7946-0958', 'tel:020-7946-0958;phone-context=+44', 'tel:7946-0958;phone-context=+44-20',
	'tel:7042;phone-context=example.com', 'tel:020-7946-0958;phone-context=example.com|GB', 'tel:020-7946-0958;phone-context=+44;ext=12',
	'tel:1;phone-context=', 'tel:+44-20-7946-0958;isub=12', 'tel:tel:+442079460958', 'whatsapp:+442079460958', 'Tel.: +44 20 7946 0958', '<020 7946 0958>|GB']);

-- extensions
SELECT * FROM pg_temp.show(ARRAY['+44 20 7946 0958 ext 12', '+44 20 7946 0958 Ext. 12', '+44 20 7946 0958, extension: 12', '+44 20 7946 0958x12',
	'+44 20 7946 0958 X 12#', '+44 20 7946 0958 #12', '+44 20 7946 0958;ext=0012', '+44 20 7946 0958,12', '+44 20 7946 0958,,12',
	'+44 20 7946 0958;12', '+44 20 7946 0958 - 12#', '+44 20 7946 0958 доб. 12', '+44 20 7946 0958 ДОБ 12', '+44 20 7946 0958 вн. 12',
	'+44 20 7946 0958 extensión 12', '+44 20 7946 0958 int 12', '+44 20 7946 0958 anexo 12', '+44 20 7946 0958 p.w. 12', '+44 20 7946 0958 wew. 12',
	'+44 20 7946 0958 ~12', '020 7946 0958 ext 12', '+44 20 7946 0958 ext', '+44 20 7946 0958 ext 123456789012345678901', '+44 20 7946 0958 #1234567890']);

-- possible is a matter of lengths; what can only be dialled locally is not
SELECT * FROM pg_temp.show(ARRAY['+44 20 5000 0000', '+1 555 555 5555', '253-0000|US', '+1 253 0000', '+44 20 7946 095', '+44 20 7946 09588', '+999 1234567', '+44', '+4']);

-- what spreadsheets leave
SELECT * FROM pg_temp.show(ARRAY['''+442079460958', '="+442079460958"', '"+44 20 7946 0958"', '4.42079E+11|GB', '4.42E+11', '4,42E11|DE', '4.42E-5|GB']);

-- no numbers
SELECT * FROM pg_temp.show(ARRAY['', ' ', '-', '()./-', '+', '++++', 'n/a', 'call me', 'box 5', 'box 5|US', 'x5', 'ext 5', '#', '0', '12|US', '1111111111|HK', '0000000000|US',
	'+44 20 7946 0958 or +44 20 7946 0959', '020 7946 0958 / 020 7946 0959|GB', '+44 20 7946 0958 (mobile)', 'a@b.org|US', U&'\00BD\00B2\0663']);
SELECT normalize_phone(NULL), phone_status(NULL, 'GB'), phone_extension(NULL);

-- length is capped, whatever it is made of
-- releases differ in how wide they take a character that nobody sees
\pset format unaligned
SELECT d, normalize_phone(s || '+442079460958'), phone_status(repeat(d, 250), 'US') AS s250, phone_status(repeat(d, 16000), 'US') AS s16000
FROM unnest(ARRAY['1', '+', ' ', '-', 'x', '(', ',', '1x', ' ext 1', ';ext=', '/ x', U&'\200E', U&'\0661', 'a']) d, repeat(' ', 237) s ORDER BY d COLLATE "C";
\pset format aligned
SELECT normalize_phone(repeat(' ', 238) || '+442079460958');

-- a region is a code of ISO 3166; some have no numbering plan
\set VERBOSITY default
SELECT normalize_phone('+442079460958', 'XX');
SELECT phone_status(NULL, 'GBR');
SELECT phone_extension('1', '');
\set VERBOSITY terse
SELECT r, normalize_phone('+442079460958', r), normalize_phone('020 7946 0958', r) FROM unnest(ARRAY['AQ', 'ZZ', 'um', NULL]) r;

-- normalising is idempotent, and E.164 means the same in every region
SELECT count(*) FROM unnest(ARRAY['020 7946 0958', '+39 02 1234 5678', '011 15-2345-6789', '1-800-FLOWERS', '0 11 2345-6789', '+44 20 5000 0000']) n,
	unnest(ARRAY['GB', 'IT', 'AR', 'US', 'BR', 'RU', NULL]) r, unnest(ARRAY['GB', 'US', 'ZZ']) q
WHERE normalize_phone(normalize_phone(n, r), q) IS DISTINCT FROM normalize_phone(n, r);

SELECT * FROM pg_temp.show(ARRAY['88101 716 729|BY', '+3758101716729', '0999999999|IM', '+440999999999', '+44 020 5000 0000']);

-- it can be indexed, and NULLs do no harm
CREATE TEMP TABLE numbers (n text);
INSERT INTO numbers VALUES ('+44 (0)20 7946 0958'), ('tel:+442079460958'), ('020 7946 0958'), (NULL);
CREATE INDEX ON numbers (normalize_phone(n));
SET enable_seqscan = off;
SELECT n FROM numbers WHERE normalize_phone(n) = '+442079460958' ORDER BY n COLLATE "C";
RESET enable_seqscan;

-- in a contact: spelling kept, extension apart, one element for each number and extension
SELECT '{"phones": ["tel:tel:+44 (0)20 7946 0958", "+44 20 7946 0958", "+442079460958 доб. 7", "+44 20 7946 0958;ext=7"]}'::contact;
SELECT '{"phones": ["555-0100 ext. 7", {"number": "5550100", "extension": "7"}, "555.0100", "٥٥٥ ٠١٠٠", "box 5", "BOX  5", "tel:tel:"]}'::contact;

-- keys: E.164 of what is possible; without a plus there is none; what the plans do not know keeps its digits
SELECT n, contact_keys(jsonb_build_object('phones', ARRAY[n])::contact) FROM unnest(ARRAY['+44 (0)20 7946 0958', '+44 20 7946-0958',
	'Tel: +442079460958', 'tel:20-7946-0958;phone-context=+44', '+39 (0)2 1234 5678', '+44 20 5000 0000', '020 7946 0958', '0044 20 7946 0958',
	'+44 20 7946 0958 x7', '+999 123-4567', '+1-555-0100', '+1 800 FLOWERS', '+44 20 7946 0958 or +44 20 7946 0959', 'box 5', '+123456']) n;

-- reading again what was written changes nothing
SELECT n FROM unnest(ARRAY['tel:tel:+44 20', 'tel: tel: x', 'box 5', '+44 20 7946 0958 доб. 7', U&'\202A+44 20 7946 0958\202C', 'tel:20;phone-context=+44;ext=1', '+', 'tel:']) n,
	LATERAL (SELECT jsonb_build_object('phones', ARRAY[n])::contact AS c) x
WHERE NOT contact_identical(c, c::text::contact) OR NOT contact_identical(c, (c::jsonb)::contact);

-- some plans have numbers longer than E.164's 15 digits: what is possible is a key
SELECT n, normalize_phone(n) = n AS normal, phone_status(n) AS status, contact_keys(jsonb_build_object('phones', ARRAY[n])::contact) AS keys,
	jsonb_build_object('phones', ARRAY[n])::contact && ARRAY['tel:' || n] AS found
FROM unnest(ARRAY['+49211111111111111', '+4915111111111111', '+12345678901234567890']) n;
