# CardDAV against Xandikos, a second server that nobody here wrote, and one of other habits
# than Radicale: the token comes last and is no URI, an unknown one is an error of the server.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($node, $dir) = peers_node('xandikos');
my ($xandikos, $base) = start_xandikos("$dir/xandikos");

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
sub run_source
{
	my ($source, $full) = @_;
	my $call = $full ? "sync('$source', true)" : "sync('$source')";
	return sql("SELECT $call AS run \\gset\nSELECT wait_for_run(:run, '60 s') AS state \\gset\n"
		. "SELECT concat_ws(' ', :'state', coalesce(error_code, '-'), kind, cause, CASE WHEN certified THEN 'certified' END) FROM runs WHERE id = :run");
}
sub last_run { return sql("SELECT $_[0] FROM runs ORDER BY id DESC LIMIT 1") }
my $book = "$base/ann/contacts/addressbook";
# What the server holds, asked for as any client would, and what is here of it.
sub same
{
	my ($source, $name) = @_;
	my $listing = (dav('PROPFIND', "$book/", '<propfind xmlns="DAV:"><prop><getetag/></prop></propfind>', Depth => 1, 'Content-Type' => 'application/xml'))[1];
	my @names = map { s/%40/@/gr } $listing =~ m{/ann/contacts/addressbook/([^<]+\.vcf)<}g;
	my @there = sort map { my $card = (dav('GET', "$book/$_"))[1]; join('|', $_, $card =~ /^FN:(.*?)\r?$/m, $card =~ /^EMAIL[^:]*:(.*?)\r?$/m) } @names;
	my @here = sort split /\n/, sql(qq{SELECT concat_ws('|', source_id, concat_ws(' ', state ->> 'first_name', state ->> 'last_name'), state -> 'emails' -> 0 ->> 'address') FROM records WHERE source = '$source' AND alive});
	is(join("\n", @here), join("\n", @there), $name);
	my @contacts = sort split /\n/, sql(qq{SELECT concat_ws('|', s.x ->> 'source_id', concat_ws(' ', d.first_name, d.last_name), d.emails #>> '{0,address}')
		FROM directory d, LATERAL jsonb_array_elements(d.sources) s (x) WHERE s.x ->> 'source' = '$source'});
	is(join("\n", @contacts), join("\n", @there), "$name: contacts");
	return scalar(@there);
}
sub put
{
	my ($n, $title, @more) = @_;
	return dav('PUT', "$book/u$n.vcf", card("u$n", "First$n", "Last$n", "EMAIL:p$n\@x.org", $title ? "TITLE:$title" : (), @more));
}

sql('CREATE EXTENSION contactsync');
is(put($_), 201, "card $_") for 10 .. 39;
my $settings = '"poll": false, "allow_http": true, "allow_private": true';
sql(qq{SELECT add_source('$_->[0]', 'carddav', '{"url": "$base$_->[1]", $settings}', '{"username": "ann", "password": "pw"}')})
	for [ 'book', '/ann/contacts/addressbook/' ], [ 'home', '/ann/' ], [ 'root', '' ];

# ---- the first read, from wherever it starts ----
for my $source ('book', 'home', 'root')
{
	is(run_source($source), 'succeeded - full request certified', "$source: the first read") or diag(last_run('error'));
	is(same($source, "$source: everybody is here"), 30, "$source: all 30");
}
is(sql(q{SELECT count(DISTINCT "cursor" ->> 'collection') FROM sources}), '1', 'it is the same address book');
is(sql(q{SELECT "cursor" ->> 'token' ~ '^[0-9a-f]{40}$' FROM sources WHERE name = 'book'}), 't', 'with a token that is no URI');

# ---- what changes ----
is(run_source('book') . ' ' . last_run('items'), 'succeeded - incremental request 0', 'nothing new, nothing read');
my $etag = sql(q{SELECT etag FROM source_items WHERE source = 'book' AND source_id = 'u10.vcf'});
like(put(10, 'CTO'), qr/^20[14]$/, 'a card is changed');
like(put(11, 'CFO'), qr/^20[14]$/, 'and another one');
like(put(11, 'CEO'), qr/^20[14]$/, 'twice');
like(dav('DELETE', "$book/u12.vcf"), qr/^20[04]$/, 'one is deleted');
is(put(40), 201, 'one is new');
is(put(41), 201, 'one came');
like(dav('DELETE', "$book/u41.vcf"), qr/^20[04]$/, 'and went');
like(dav('DELETE', "$book/u13.vcf"), qr/^20[04]$/, 'one went');
is(put(13, 'Back'), 201, 'and came');
is(run_source('book'), 'succeeded - incremental request', 'the next read');
is(last_run('items, deletes'), '5|1', 'is of what changed');
same('book', 'and brings it');
isnt(sql(q{SELECT etag FROM source_items WHERE source = 'book' AND source_id = 'u10.vcf'}), $etag, 'a card that changed has another ETag');
is(sql(q{SELECT string_agg(title, ' ' ORDER BY title) FROM directory WHERE title IS NOT NULL}), 'Back CEO CTO', 'the latest of each');
like((dav('PUT', "$book/u14.vcf", card('u14', 'First14', 'Last14', 'EMAIL:p14@x.org')))[0], qr/^20[14]$/, 'a card is put as it was');
my $observations = sql('SELECT count(*) FROM observations');
is(run_source('book'), 'succeeded - incremental request', 'whether the server takes that for a change or not');
is(sql('SELECT count(*) FROM observations'), $observations, 'nothing is observed');

# ---- names that are encoded ----
is(dav('PUT', "$book/a%20b%2Bc%C3%A9.vcf", card('odd', 'Odd', 'Name', 'EMAIL:odd@x.org')), 201, 'a name that has to be encoded');
is(run_source('book'), 'succeeded - incremental request', 'is read') or diag(last_run('error'));
is(sql(q{SELECT source_id FROM records WHERE source = 'book' AND state ->> 'first_name' = 'Odd'}), "a b+c\xC3\xA9.vcf", 'decoded');
dav('DELETE', "$book/a%20b%2Bc%C3%A9.vcf");
is(run_source('book'), 'succeeded - incremental request', 'and gone');
is(sql(q{SELECT alive FROM records WHERE source = 'book' AND source_id LIKE 'a b+c%'}), 'f', 'by its name');

# ---- a token that the server does not know is an error of it, not of ours ----
sql(q{UPDATE sources SET "cursor" = jsonb_set("cursor", '{token}', '"0123456789012345678901234567890123456789"') WHERE name = 'book'});
dav('DELETE', "$book/u15.vcf");
like(run_source('book'), qr/^failed 08006 incremental/, 'once it is a failure: ' . last_run('error'));
is(run_source('book'), 'succeeded - full cursor lost certified', 'twice, a lost token');
is(run_source('book', 1), 'succeeded - full request certified', 'who is absent twice');
ok($node->poll_query_until('postgres', q{SELECT NOT alive FROM contactsync.records WHERE source = 'book' AND source_id = 'u15.vcf'}), 'is deleted');
same('book', 'and nobody else');

# ---- several address books: each is a source ----
is(dav('MKCOL', "$base/ann/contacts/team/", '<?xml version="1.0"?><mkcol xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:carddav"><set><prop><resourcetype><collection/><C:addressbook/></resourcetype></prop></set></mkcol>',
	'Content-Type' => 'application/xml'), 201, 'a second address book');
is(dav('PUT', "$base/ann/contacts/team/t1.vcf", card('t1', 'First16', 'Last16', 'EMAIL:p16@x.org', 'TEL;TYPE=CELL:+442079460016')), 201, 'with somebody who is in the first');
sql(qq{SELECT add_source('several', 'carddav', '{"url": "$base/ann/", $settings}', '{"username": "ann", "password": "pw"}')});
is(run_source('several'), 'failed 08P01 full request', 'a URL with several');
like(last_run('error'), qr{2 address books.*/ann/contacts/(addressbook|team)/, /ann/contacts/(addressbook|team)/}, 'is told which: ' . last_run('error'));
sql(qq{SELECT add_source('team', 'carddav', '{"url": "$base/ann/contacts/team", $settings}', '{"username": "ann", "password": "pw"}')});
is(run_source('team'), 'succeeded - full request certified', 'each can be read') or diag(last_run('error'));
is(sql(q{SELECT jsonb_path_query_array(sources, '$[*].source') @> '["book", "team"]', phones #>> '{0,number}' FROM directory WHERE last_name = 'Last16'}), 't|+442079460016', 'and who is in both is one');
is(sql('SELECT count(*) FROM verify()'), '0', 'it all follows from what was said');
unlike(slurp_file($node->logfile), qr/TRAP|PANIC/, 'no assertion failed');
$node->stop;
$xandikos->kill_kill;
done_testing();
