# What is stored comes back, to the byte: random stamped contacts with
# tombstones, as text and by binary COPY, in databases of three encodings; and
# the states of records that random events leave.
use strict;
use warnings;
use Cwd qw(abs_path);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} || 20261125;
srand($seed);
note("SEED=$seed repeats this run");

my $node = PostgreSQL::Test::Cluster->new('roundtrip');
$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'\ncontactsync.enabled = off\nfsync = off");
$node->start;

sub pick { return $_[ int rand @_ ] }

# JSON of a random text; in_latin1 leaves what LATIN1 has no character for out
sub random_text
{
	my ($in_latin1) = @_;
	my @atoms = ('a' .. 'e', 'Z', ' ', '  ', "'", '\\"', '\\\\', '\\n', '\\t', '\\u0001', ',', ';', '<', '>', '@', '.', '-', 'xn--', '%41', '\\u00e9', '\\u00a0', '\\u00df', '\\u0085');
	push @atoms, '\\u0301', '\\u200b', '\\u202e', '\\u3000', '\\ud83d\\ude06', '\\u212b', '\\u0958', '\\u1fef', '\\ufeff' unless $in_latin1;
	return join '', map { pick(@atoms) } 1 .. 1 + int rand pick(4, 12, 60);
}

# Almost an address, or one.
sub random_address
{
	my ($in_latin1) = @_;
	my $local = pick('ann', 'Ann.Lee', '\\"ann lee\\"', '\\"a\\\\\\"b\\"', '\\u00e9', "o'brien", random_text($in_latin1));
	my $domain = pick('x.org', 'X.ORG.', 'b\\u00fccher.de', 'fa\\u00df.de', 'localhost', '[192.0.2.1]', '[IPv6:2001:DB8::1]', 'xn--0', 'x..org', 'x\\u00adx.org', random_text($in_latin1));
	return pick('', ' ', 'mailto:', 'Ann <', '\\"', "'") . "$local\@$domain" . pick('', ' ', ',', '>', '\\"', "'", '?x=y');
}

my @scalars = qw(first_name last_name company title note birthday);
sub random_stamp
{
	my ($tombstone) = @_;
	my @flags = grep { rand() < .3 } qw("estimate" "enriched" "derived" "overridden");
	push @flags, '"tombstone"' if $tombstone;
	my ($as_of, $changed) = map { pick('-infinity', 'infinity', sprintf('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ',
		pick(1, 1999, 2026, 9999), 1 + int rand 12, 1 + int rand 28, int rand 24, int rand 60, int rand 60, int rand 1e6)) } 1 .. 2;
	return sprintf('{"source": "%s", "as_of": "%s", "changed_at": "%s", "flags": [%s]}', pick('crm', 'phone', 'a\\"b', '\\u00e9', "s" . int rand 9), $as_of, $changed, join(', ', @flags));
}

# Fields and elements whose keys are known, so that they can be stamped, some
# addresses beside them, and tombstones of fields, elements and whole lists.
sub random_contact
{
	my ($in_latin1) = @_;
	my (%members, %stamps);
	for my $field (@scalars)
	{
		$members{$field} = 'x' . random_text($in_latin1) . 'x' if rand() < .4;
		$stamps{$field} = random_stamp(!exists $members{$field}) if rand() < .5;
	}
	my @json = map { qq("$_": "$members{$_}") } keys %members;
	for my $field (qw(emails tags metadata))
	{
		my %keys = map { $_ => 1 } map { ($field eq 'emails' ? 'm' . int(rand 50) . '@x.org' : 'k' . int rand 50) } 1 .. rand pick(1, 4, 40);
		my @elements = sort keys %keys;
		for my $key (@elements) { $stamps{"$field:$key"} = random_stamp(0) if rand() < .6 }
		for (1 .. rand 4)
		{
			my $key = 'gone' . int(rand 99) . pick('', '@x.org', ':', ' ', '\\"');
			$stamps{"$field:$key"} = random_stamp(1);
		}
		if ($field eq 'metadata')
		{
			my %values = map { $_ => pick('1', '1.50', 'true', '"x"', '{"b": [1, {"a": null}]}', '[]', '"x' . random_text($in_latin1) . '"') } @elements;
			push @json, '"metadata": {' . join(', ', map { qq("$_": $values{$_}) } @elements) . '}' if @elements;
			delete $stamps{"metadata:$_"} for grep { $values{$_} eq '[]' } @elements;
			next;
		}
		my @list = map { $field eq 'tags' ? qq("$_") : qq({"address": "$_", "type": "T$_", "primary": ) . pick('true', 'false') . ', "verified": ' . pick('true', 'false', 'null') . '}' } @elements;
		push @list, map { $field eq 'tags' ? '"' . random_text($in_latin1) . '"' : '"' . random_address($in_latin1) . '"' } 1 .. rand 5;
		push @json, qq("$field": [) . join(', ', @list) . ']';
	}
	for my $field (qw(phones addresses urls)) { $stamps{$field} = random_stamp(1) if rand() < .2 }
	push @json, '"phones": ["+1650253' . int(1000 + rand 9000) . '", "555 x' . int(rand 99) . '"]' if rand() < .5 && !$stamps{phones};
	push @json, '"addresses": [{"street": "' . random_text($in_latin1) . '", "city": "' . random_text($in_latin1) . '"}]' if rand() < .3 && !$stamps{addresses};
	push @json, '"_provenance": {' . join(', ', map { qq("$_": $stamps{$_}) } sort keys %stamps) . '}' if %stamps;
	return '{' . join(', ', @json) . '}';
}

# Statements that put random contacts into the table c.
sub insert_contacts
{
	my ($in_latin1) = @_;
	return join '', map { my $c = random_contact($in_latin1); $c =~ s/'/''/g; "INSERT INTO c SELECT $_, '$c'::contactsync.contact;\n" } 1 .. 1000;
}

for my $encoding ('UTF8', 'LATIN1', 'SQL_ASCII')
{
	my $db = lc "enc_$encoding";
	my $folder = abs_path(PostgreSQL::Test::Utils::tempdir);
	$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0 ENCODING '$encoding' LC_COLLATE 'C' LC_CTYPE 'C'");
	# in SQL_ASCII an escape beyond ASCII is no text
	my $sql = insert_contacts($encoding ne 'UTF8');
	$sql =~ s/\\u00[89a-f][0-9a-f]/\xC3\xA9/g if $encoding eq 'SQL_ASCII';
	$node->safe_psql($db, "SET client_min_messages = warning; SET client_encoding = " . ($encoding eq 'SQL_ASCII' ? 'SQL_ASCII' : 'UTF8') .
		";\nCREATE EXTENSION contactsync; CREATE TABLE c (id integer, c contactsync.contact); BEGIN;\n$sql COMMIT;
		CREATE TABLE again (LIKE c);
		COPY c TO '$folder/c' (FORMAT binary); COPY again FROM '$folder/c' (FORMAT binary);");
	my @differ = map { $node->safe_psql($db, "SELECT count(*), " .
		"coalesce(min(id) FILTER (WHERE NOT same), 0) AS first FROM (SELECT c.id, $_ AS same FROM c JOIN again USING (id)) s") }
		('contactsync.contact_identical(c.c, again.c)', 'contactsync.contact_identical(c.c, c.c::text::contactsync.contact)',
		'contactsync.contact_identical(c.c, c.c::text::contactsync.contact) AND c.c OPERATOR(contactsync.=) again.c AND contactsync.contact_hash(c.c) = contactsync.contact_hash(again.c)');
	is($differ[0], '1000|0', "$encoding: binary COPY brings the same bytes");
	is($differ[1], '1000|0', "$encoding: so does text");
	is($differ[2], '1000|0', "$encoding: equal and of one hash");
	is($node->safe_psql($db, "SELECT count(*) FILTER (WHERE NOT contactsync.contact_identical((c::jsonb)::contactsync.contact, ((c::jsonb)::contactsync.contact)::text::contactsync.contact)) FROM c"), '0',
		"$encoding: and through jsonb");
	is($node->safe_psql($db, "SELECT count(*) > 0 FROM c, jsonb_each(contactsync.contact_provenance(c))"), 't', "$encoding: they are stamped");
	is($node->safe_psql($db, "SELECT count(*) > 0 FROM c WHERE c::text LIKE '%\"tombstone\"%'"), 't', "$encoding: with tombstones");

	# nothing that a column of bytes can hold makes the functions fail
	my $bytes = $encoding eq 'UTF8' ? q{E'\u00e9'} : q{convert_from('\xe9', getdatabaseencoding())};
	$node->safe_psql($db, "SELECT contactsync.email_status(a), contactsync.normalize_email(a, true) FROM (
		SELECT b || l || $bytes || x || '\@' || y || $bytes || z || e AS a FROM unnest(ARRAY['', 'mailto:', '<', '\"']) b, unnest(ARRAY['', 'a', '\"', '\\\\']) l,
		unnest(ARRAY['', '\"', '.']) x, unnest(ARRAY['', 'x', 'x.', '[', '-']) y, unnest(ARRAY['', '.org', ']', '..']) z, unnest(ARRAY['', '>', '\"', ',']) e) s");
	pass("$encoding: no address makes the functions fail");
}
is($node->safe_psql('enc_latin1', q{SELECT contactsync.normalize_email(convert_from('\x61e94042fc63686572', 'LATIN1') || '.de') = convert_from('\x61e9', 'LATIN1') || '@xn--bcher-kva.de'}), 't',
	'LATIN1: a domain becomes A-labels');
is($node->safe_psql('enc_sql_ascii', q{SELECT contactsync.normalize_email(convert_from('\x614062fc', 'SQL_ASCII') || '.de') IS NULL AND contactsync.normalize_email(convert_from('\x61e9', 'SQL_ASCII') || '@x.de') IS NOT NULL}), 't',
	'SQL_ASCII: a domain that cannot be read is none, a local part is kept');

# what the events of a source leave: stamps and tombstones as the fold makes them
my $events = '';
for my $n (1 .. 600)
{
	my @m;
	push @m, '"title": ' . pick('"CTO"', 'null') if rand() < .6;
	push @m, '"emails": [' . join(', ', map { '"m' . int(rand 9) . '@x.org"' } 1 .. rand 5) . ']' if rand() < .7;
	push @m, '"tags": ["t' . int(rand 9) . '"]' if rand() < .7;
	push @m, '"metadata": {"k' . int(rand 4) . '": ' . pick('1', 'null') . '}' if rand() < .5;
	$events .= sprintf("SELECT contactsync.ingest('s', 'r%d', '{%s}', '2026-01-%02d', '%s', %d);\n", int rand 30, join(', ', @m), 1 + int rand 28, pick('snapshot', 'patch'), $n);
}
$node->safe_psql('enc_utf8', "SELECT contactsync.add_source('s', 'canonical');\n$events SELECT contactsync.process();");
is($node->safe_psql('enc_utf8', q{SELECT count(*) > 0, count(*) FILTER (WHERE state::text LIKE '%"tombstone"%') > 0,
	count(*) FILTER (WHERE NOT contactsync.contact_identical(state, state::text::contactsync.contact)) FROM contactsync.records}), 't|t|0', 'states of records come back from their text');

$node->stop;
done_testing();
