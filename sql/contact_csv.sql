-- CSV: lines split as real files have them, columns known by their names.
SET search_path = contactsync, public;
\pset format unaligned
\pset tuples_only on

-- the contacts of a file of which the first line is the header
CREATE FUNCTION pg_temp.read(content text, date_order text DEFAULT 'mdy') RETURNS SETOF contact LANGUAGE sql AS $$
	WITH file AS MATERIALIZED (SELECT line, n FROM csv_lines(content) WITH ORDINALITY AS f (line, n))
	SELECT contact_from_csv(header.line, file.line, date_order) FROM file, file AS header
	WHERE header.n = 1 AND file.n > 1 ORDER BY file.n $$;

-- quotes, delimiters, line ends, blank lines, byte order mark, sep=
SELECT * FROM csv_lines(E'a,"b ""c"", d",e\r\n\r\n"two\nlines",,\n  \nlast');
SELECT * FROM csv_lines(E'\ufeffsep=|\r\n1|"2|3"|a"b"\r4|5') a, csv_lines(E'x;"y,z,w"\n1;2') b, csv_lines(E't\tu,v\n') c;
SELECT * FROM csv_lines('"a"x,b;c', ',') a, csv_lines('"a"x,b;c', ';') b;
SELECT count(*) FROM csv_lines('') a, csv_lines(E'\n\r\n') b;
SELECT count(*) FROM csv_lines(NULL::text) a, csv_lines(NULL::bytea) b;
SELECT * FROM csv_lines(E'a,b\n1,"open\nto the end');
SELECT * FROM csv_lines('a', '');
SELECT * FROM csv_lines('a', '::');

-- files: UTF-16 in either order, Windows-1252, UTF-8
SELECT * FROM csv_lines('\xfffe4d00fc002c006100'::bytea) a, csv_lines('\xfeff004d00fc002c0061'::bytea) b, csv_lines('\x4dfc2c80'::bytea) c, csv_lines('\xefbbbf4dc3bc2c61'::bytea) d;
SELECT * FROM csv_lines('\x4d002c006100'::bytea);

-- Google, as until 2024 and since; of several values the starred is primary
SELECT pg_temp.read(E'Name,Given Name,Additional Name,Family Name,Name Prefix,Name Suffix,Nickname,Birthday,Occupation,Notes,Group Membership,E-mail 1 - Type,E-mail 1 - Value,E-mail 2 - Type,E-mail 2 - Value,IM 1 - Service,IM 1 - Value,Phone 1 - Type,Phone 1 - Value,Address 1 - Type,Address 1 - Formatted,Address 1 - Street,Address 1 - City,Address 1 - PO Box,Address 1 - Region,Address 1 - Postal Code,Address 1 - Country,Address 1 - Extended Address,Organization 1 - Name,Organization 1 - Title,Organization 1 - Department,Organization 2 - Name,Website 1 - Type,Website 1 - Value,Custom Field 1 - Type,Custom Field 1 - Value\n'
	|| E'Dr. Zoe Ada Okafor,Zoe,Ada,Okafor,Dr.,,Zo, --02-29,Buyer,"one\ntwo",Rowing ::: * myContacts ::: * starred,Home,zoe@home.example,* Work,zoe@EXAMPLE.org ::: z.okafor@example.org,Jabber,zoe@jabber.example,Work Fax,+1 555 0101 ::: +1 555 0102,Home,"1 Main St\nPO 7\nSpringfield, IL 62701\nUSA",1 Main St,Springfield,PO 7,IL,62701,USA,,Initrode,Chief Buyer,Purchase,Initech,Profile,http://example.org/zoe,Shoe size,38');
SELECT pg_temp.read(E'First Name,Middle Name,Last Name,Phonetic First Name,Name Prefix,Name Suffix,Nickname,File As,Organization Name,Organization Title,Organization Department,Birthday,Notes,Photo,Labels,E-mail 1 - Label,E-mail 1 - Value,Phone 1 - Label,Phone 1 - Value,Phone 2 - Label,Phone 2 - Value,Address 1 - Label,Address 1 - Formatted,Website 1 - Label,Website 1 - Value\n'
	|| E'Zoe,,Okafor,Zo-ee,,,,"Okafor, Zoe",Initrode,Buyer,Purchase,1980-02-29,,https://example.org/z.jpg,* myContacts,* ,zoe@example.org,Mobile,tel:+1-555-0100;ext=12,* Main,+1 555 0109,Boat,"Pier 4\nHarbour",Blog,http://example.org/');

-- Outlook: desktop in English and German, web; "Title" is a prefix beside "Job Title" only
SELECT pg_temp.read(E'"Title","First Name","Last Name","Company","Department","Job Title","Business Street","Business Street 2","Business City","Business State","Business Postal Code","Business Country/Region","Home Address PO Box","Home City","Assistant''s Phone","Business Fax","Business Phone","Home Phone","Mobile Phone","Primary Phone","Birthday","Anniversary","Categories","E-mail Address","E-mail Type","E-mail Display Name","E-mail 2 Address","Gender","Hobby","Notes","Priority","Private","Sensitivity","User 1","Web Page"\n'
	|| E'"Dr.","Zoe","Okafor","Initrode","Purchase","Buyer","1 Main St","Floor 2","Springfield","IL","62701","USA","PO 7","Shelbyville","+1 555 0103","+1 555 0101","+1 555 0100","+1 555 0104","+1 555 0105","+1 555 0106","2/29/1980","0/0/00","Rowing;VIP","zoe@example.org","SMTP","Zoe Okafor (zoe@example.org)","/o=x/cn=zoe","Unspecified","Chess","n","Normal","False","High","u","http://example.org/"\n'
	|| E'"","Bo","","","","","","","","","","","","","","","","","","","0/0/00","0/0/00","","","","","","Unspecified","","","Normal","False","Normal","",""');
SELECT pg_temp.read(E'Anrede;Vorname;Weitere Vornamen;Nachname;Firma;Abteilung;Position;Straße geschäftlich;Postleitzahl geschäftlich;Ort geschäftlich;Land/Region geschäftlich;STRASSE PRIVAT;Weiterer Ort;Fax geschäftlich;Telefon (privat);Mobiltelefon;Geburtstag;Geschlecht;Kategorien;E-Mail-Adresse;E-Mail-Typ;E-Mail 2: Adresse;Notizen;Priorität;Privat;Webseite;Büro\n'
	|| E'Frau;Jördis;Eva;Öztürk;Initrode;Einkauf;Leiterin;Am Weg 1;10115;Berlin;Deutschland;Hof 2;Bonn;+49 30 555010;030 555011;0171 555012;29.02.1980;Keine Angabe;Rudern;j@example.org;SMTP;joerdis@home.example;"a;b";Normal;Falsch;http://example.org/;R 12');
SELECT pg_temp.read(E'First Name,Last Name,Title,Nickname,Given Yomi,E-mail Address,Business Phone,IMAddress,Job Title,Company,Business Street,Home Country/Region,Personal Web Page,Schools,Birthday\nZoe,Okafor,Ms,Zo,,zoe@example.org,5550100,im:zoe,Buyer,Initrode,1 Main St,USA,http://home.example/,MIT,1980-02-29');

-- Thunderbird, and plain names
SELECT pg_temp.read(E'First Name,Display Name,Primary Email,Secondary Email,Fax Number,Home Address,Home Address 2,Home City,Home ZipCode,Birth Year,Birth Month,Birth Day,Custom 1,Notes,\nZoe,The Zoe,z@example.org,zoe@example.org,5550101,1 Main St,Flat 2,Springfield,62701,1980,2,29,c1,n,beyond');
SELECT pg_temp.read(E'NAME, Email ,Phone,Title,City,Tags\nZoe Ada Okafor,zoe@example.org,5550100,Buyer,Springfield,a ::: b\nzoe@example.org,zoe@example.org,,,,\nCher,,,,,');

-- dates: what the digits show, else as the caller says; what is none stays
SELECT d, string_agg(coalesce(contact_from_csv('{Birthday}', ARRAY[d], o) ->> 'birthday', '-'), ' or ' ORDER BY o DESC)
FROM unnest('{1/2/1980,13/2/1980,1/13/1980,1.2.1980,1980-02-01,19800201,--02-01,1/2/80,31/31/1980,"May 5, 1980",0.0.0000,0000-00-00}'::text[]) d, unnest('{mdy,dmy}'::text[]) o GROUP BY d ORDER BY d COLLATE "C";
SELECT contact_from_csv('{Birthday}', '{1/2/1980}', 'ymd');

-- lines that do not fit: empty, shorter, longer; second values; names that collide or are missing
SELECT contact_from_csv('{First Name,Email}', '{}'), contact_from_csv('{First Name,Email}', '{"",NULL}'), contact_from_csv('{}', '{}');
SELECT contact_from_csv('{First Name,Email}', '{Zoe}'), contact_from_csv('{First Name}', '{Zoe,x,"",y}');
SELECT contact_from_csv('{Company,Organization,"A b","a-B",NULL,"",vCard,JSContact,Birth Year}', '{One,Two,1,2,3,4,5,6,1980}');
SELECT contact_from_csv('{Company,Organization,Address 1 - City,Address 99 - City,E-mail 0 - Value,E-mail 1 - Odd}', '{One,One,Springfield,x,y,z}');
SELECT contact_from_csv('{{a,b},{c,d}}', '{}');
SELECT contact_from_csv(NULL, '{}') IS NULL;

-- what is read is a contact like any other
SELECT count(*), bool_and(contact_identical(c, c::text::contact)) FROM generate_series(1, 200) i,
	contact_from_csv('{Name,Email,Notes,"Q\"uote",Labels}', ARRAY['N' || i, 'n' || i || '@example.org', E'\\ " \n' || i, '"', 'a;b ::: c']) c;

-- hostile input: soon, and within the limits
SELECT jsonb_array_length(c -> 'tags') FROM contact_from_csv('{Labels}', ARRAY[(SELECT string_agg(i::text, ' ::: ') FROM generate_series(1, 5000) i)]) c;
SELECT contact_from_csv('{Labels}', ARRAY[(SELECT string_agg(i::text, ';') FROM generate_series(1, 12000) i)]);
SELECT contact_from_csv('{Notes}', ARRAY[repeat('x', 17000000)]);
SELECT contact_from_csv(array_agg('Name'::text), array_agg(repeat('ab ', 100))) ->> 'last_name' FROM generate_series(1, 2000);
SELECT length(contact_from_csv('{Name,First Name,Nickname}', ARRAY[repeat('a ', 200000), repeat('b', 200000), repeat('a ', 500)]) -> 'metadata' ->> 'formatted_name');
SELECT cardinality(line) FROM csv_lines(repeat(',', 9999)) line;
SELECT csv_lines(repeat(',', 10000));
SELECT count(*) FROM csv_lines(repeat(E'"a""b",c\n', 100000));
