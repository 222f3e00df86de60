# CardDAV against Radicale, a server that nobody here wrote: discovery, the first
# read, changes by sync token, ETags, deletes, a token that is lost.
use strict;
use warnings;
use File::Spec;
use FindBin;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('carddav');
my $dir = File::Spec->rel2abs($node->basedir);
my ($radicale, $base) = start_radicale("$dir/radicale");
$node->init;
mkdir "$dir/secrets";
spew("$dir/secrets/password", "pw\n");
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'\ncontactsync.secret_directory = '$dir/secrets'\ncontactsync.http_timeout = 10\n");
$node->start;

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }

sub run_source
{
	my ($source, $full) = @_;
	my $run = sql("SELECT sync('$source'" . ($full ? ', true' : '') . ')');
	my $state = sql("SELECT wait_for_run($run, '60 s')");
	diag(sql("SELECT error FROM runs WHERE id = $run")) if $state ne 'succeeded';
	return ($state, $run);
}

# ---- an address book ----
my $book = "$base/ann/contacts";
is(dav('PUT', "$book/", join('', map { card("u$_", "First$_", "Last$_", "EMAIL:p$_\@x.org", "TEL;TYPE=CELL:+4420794600$_") } 10 .. 59)), 201, 'an address book is put');
sql('CREATE EXTENSION contactsync');
my $settings = '"class": "device", "poll": false, "allow_http": true, "allow_private": true';
my $secret = qq({"username": "ann", "password": {"file": "$dir/secrets/password"}});
# a literal secret needs a key: the user name goes into a file, too
spew("$dir/secrets/user", "ann\n");
$secret = qq({"username": {"file": "$dir/secrets/user"}, "password": {"file": "$dir/secrets/password"}});
for my $place (['direct', '/ann/contacts/'], ['home', '/ann/'], ['root', ''])
{
	sql(qq{SELECT add_source('$place->[0]', 'carddav', '{"url": "$base$place->[1]", $settings}', '$secret')});
}
my ($state, $run) = run_source('direct');
is($state, 'succeeded', 'the first read succeeds');
is(sql("SELECT kind, items, certified, certificate_applied FROM runs WHERE id = $run"), 'full|50|t|t', 'it is full and certified');
is(sql("SELECT count(*) FROM directory"), '50', 'every card is a contact');
is(sql(q{SELECT first_name, emails -> 0 ->> 'address', phones -> 0 ->> 'type' FROM directory WHERE last_name = 'Last12'}), 'First12|p12@x.org|mobile', 'with its fields');
is(sql(q{SELECT count(*) FROM records WHERE source = 'direct' AND source_id !~ '/' AND source_id LIKE '%.vcf'}), '50', 'records are named by their path in the address book');
is((run_source('home'))[0], 'succeeded', 'the address book is found from the principal');
is((run_source('root'))[0], 'succeeded', 'and from the root of the server');
is(sql('SELECT count(*) FROM directory'), '50', 'whoever reads it, they are the same people');
is(sql(q{SELECT count(DISTINCT "cursor" ->> 'collection') FROM sources}), '1', 'and the same address book');

# ---- what changes ----
my $href = sql(q{SELECT source_id FROM records WHERE source = 'direct' AND state ->> 'last_name' = 'Last12'});
my $before = sql(q{SELECT count(*) FROM observations o JOIN records r ON r.id = o.record_id WHERE source = 'direct'});
like(dav('PUT', "$book/$href", card('u12', 'First12', 'Last12', 'EMAIL:p12@x.org', 'TITLE:CTO', 'REV:20250301T101112Z')), qr/^20[14]$/, 'a card is changed');
my $gone = sql(q{SELECT source_id FROM records WHERE source = 'direct' AND state ->> 'last_name' = 'Last13'});
is(dav('DELETE', "$book/$gone"), 200, 'a card is deleted');
is(dav('PUT', "$book/a%20b%26c%C3%A9.vcf", card('new', 'New', 'Person', 'EMAIL:new@x.org')), 201, 'a card is added');
($state, $run) = run_source('direct');
is(sql("SELECT kind, items, deletes FROM runs WHERE id = $run"), 'incremental|3|1', 'only that is read');
is(sql(q{SELECT title, phones FROM directory WHERE last_name = 'Last12'}), 'CTO|[{"type": "mobile", "number": "+442079460012", "primary": true}]', 'the change is there; other sources still have the number');
is(sql(q{SELECT source_modified AT TIME ZONE 'UTC', version > '2026-01-01' FROM records WHERE source = 'direct' AND source_id = '} . $href . q{'}),
	'2025-03-01 10:11:12|t', 'REV is kept as the last modification, the version is the run');
is(sql(q{SELECT source_id FROM records WHERE state ->> 'first_name' = 'New'}), "a b&c\xC3\xA9.vcf", 'a name that is encoded is decoded');
is(sql(q{SELECT alive FROM records WHERE source = 'direct' AND source_id = '} . $gone . q{'}), 'f', 'the deleted record is dead');
is(sql(q{SELECT count(*) FROM directory WHERE last_name = 'Last13'}), '1', 'the contact lives on in other sources');
run_source('home');
run_source('root');
is(sql(q{SELECT count(*) FROM directory WHERE last_name = 'Last13'}), '0', 'until they say so, too');
my $observations = sql('SELECT count(*) FROM observations');
($state, $run) = run_source('direct');
is(sql("SELECT items FROM runs WHERE id = $run"), '0', 'nothing new, nothing read');

# ---- a full read fetches only what is new ----
($state, $run) = run_source('direct', 1);
is(sql("SELECT kind, items, certified FROM runs WHERE id = $run"), 'full|0|t', 'a full read finds every ETag known');
is(sql('SELECT count(*) FROM observations'), $observations, 'and brings nothing new');
is(sql(q{SELECT count(*) FROM directory}), '50', 'and deletes nobody');

# ---- the token is lost ----
sql(q{UPDATE sources SET "cursor" = jsonb_set("cursor", '{token}', '"http://radicale.org/ns/sync/0000000000000000000000000000000000000000000000000000000000000000"') WHERE name = 'direct'});
is(dav('DELETE', "$book/$href"), 200, 'a card is deleted meanwhile');
($state, $run) = run_source('direct');
is("$state " . sql("SELECT kind, cause, certified FROM runs WHERE id = $run"), 'succeeded full|cursor lost|t', 'the run becomes a full one');
ok($node->poll_query_until('postgres', qq{SELECT NOT alive FROM contactsync.records WHERE source = 'direct' AND source_id = '$href'}), 'in which the server still names who was deleted');
is((run_source('direct'))[0], 'succeeded', 'and has a token again');

# ---- somebody is absent, and all others are as they were ----
my $absent = sql(q{SELECT source_id FROM records WHERE source = 'direct' AND alive AND state ->> 'last_name' = 'Last20'});
unlink "$dir/radicale/data/collection-root/ann/contacts/$absent" or die $!;
system('rm', '-rf', "$dir/radicale/data/collection-root/ann/contacts/.Radicale.cache");
($state, $run) = run_source('direct', 1);
is(sql("SELECT items, held_deletes FROM runs WHERE id = $run"), '0|0', 'a full read that brings nothing new is no empty list');
# the card itself is asked for, and that settles it
ok($node->poll_query_until('postgres', qq{SELECT NOT alive FROM contactsync.records WHERE source = 'direct' AND source_id = '$absent'}), 'who is absent is asked for, and gone by a 404');
is(sql("SELECT missed FROM runs WHERE id = $run"), '0', 'so that the next poll need not read everything');
like(dav('PUT', "$book/a%20b%26c%C3%A9.vcf", card('new', 'Fetched', 'Person', 'EMAIL:new@x.org')), qr/^20[14]$/, 'a card is changed');
is(sql("SELECT fetch_records('direct', ARRAY['a b&c\xC3\xA9.vcf'])"), '1', 'and asked for');
ok($node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM contactsync.records WHERE source = 'direct' AND contactsync.contact_to_jsonb(state) ->> 'first_name' = 'Fetched')}), 'a fetch brings it');
is((run_source('direct'))[0] . sql(q{SELECT count(*) FROM records WHERE source = 'direct' AND state ->> 'first_name' = 'Fetched'}), 'succeeded1', 'and the next run agrees');

# ---- groups, rubbish, no rights ----
dav('PUT', "$book/group.vcf", join("\r\n", 'BEGIN:VCARD', 'VERSION:3.0', 'UID:g', 'N:;;;;', 'FN:Friends', 'X-ADDRESSBOOKSERVER-KIND:group', 'END:VCARD', ''));
run_source('direct');
is(sql(q{SELECT count(*) FROM records WHERE source_id = 'group.vcf'}), '0', 'a group is nobody');
spew("$dir/secrets/password", "wrong\n");
my $refused = sql("SELECT sync('direct')");
is(sql("SELECT wait_for_run($refused)") . sql("SELECT error_code FROM runs WHERE id = $refused"), 'failed28000', 'a wrong password stops the source');
spew("$dir/secrets/password", "pw\n");
sql("SELECT resume_source('direct')");
sql(qq{SELECT add_source('nowhere', 'carddav', '{"url": "$base/ann/nothing/here/", $settings}', '$secret')});
$refused = sql("SELECT sync('nowhere')");
isnt(sql("SELECT wait_for_run($refused)"), 'succeeded', 'a URL without an address book fails: ' . sql("SELECT error FROM runs WHERE id = $refused"));

# ---- a server that goes away in the middle ----
$radicale->kill_kill;
$refused = sql("SELECT sync('direct')");
is(sql("SELECT wait_for_run($refused)") . sql("SELECT error_code FROM runs WHERE id = $refused"), 'failed08006', 'a server that is down');
is(sql(q{SELECT map('carddav', to_jsonb('BEGIN:VCARD' || chr(10) || 'N:Lee;Ann' || chr(10) || 'END:VCARD'))}), '{"first_name": "Ann", "last_name": "Lee"}', 'map() shows what a card becomes');
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|:pw/, 'no assertion failed, and no password was logged');
$node->stop;
done_testing();
