# Reads of single records through the queue: of every provider, what they bring, what a
# record that is gone becomes, faults, priorities, credentials, and sources that end.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use JSON::PP;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($node, $dir) = peers_node('fetch');
my ($emulator, $port) = start_providers($dir);

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
sub until_sql
{
	my ($query, $expected, $name) = @_;
	my $ok = $node->poll_query_until('postgres', $query, $expected // 't');
	ok($ok, $name);
	diag(sql($query) . "\n" . sql("TABLE fetches") . "\n" . sql('TABLE dead_letters')) unless $ok;
}
# Every fetch has ended, and what they brought is applied.
my $settled = q{SELECT NOT EXISTS (SELECT FROM fetches) AND NOT EXISTS (SELECT FROM inbox WHERE failed_at IS NULL)};
sub fetch
{
	my ($source, @ids) = @_;
	my $ids = join(',', map { "'$_'" } @ids);
	my $n = sql("SELECT fetch_records('$source', ARRAY[$ids])");
	until_sql($settled, 't', "$source: @ids: fetched");
	return $n;
}
sub run_source
{
	my ($source, $full) = @_;
	my $call = $full ? "sync('$source', true)" : "sync('$source')";
	return sql("SELECT $call AS run \\gset\nSELECT wait_for_run(:run, '60 s')");
}
sub title { return sql("SELECT alive, state ->> 'title' FROM records WHERE source = '$_[0]' AND source_id = '$_[1]'") }
# The last attempt: outcome, status, error code, error.
sub last_attempt { return sql("SELECT concat_ws('|', outcome, status, error_code, error) FROM attempts ORDER BY at DESC, attempt DESC LIMIT 1") }

sql('CREATE EXTENSION contactsync; ALTER DATABASE postgres SET search_path = contactsync, public');
my %path = (google => '/google', graph => '/graph', hubspot => '/hubspot', salesforce => '', scim => '/scim');
sub add
{
	my ($name, $connector, %more) = @_;
	my $settings = encode_json({ url => "http://127.0.0.1:$port$path{$connector}", poll => JSON::PP::false, rate => JSON::PP::false,
		allow_http => JSON::PP::true, allow_private => JSON::PP::true, %more });
	sql(qq{SELECT add_source('$name', '$connector', '$settings', '{"token": "tok"}')});
}
my %id;

# ---- what each provider says of one record ----
for my $provider (sort keys %path)
{
	control(op => 'reset', provider => $provider, count => 30);
	add($provider, $provider);
	is(run_source($provider), 'succeeded', "$provider: is read");
	my %by_number = map { $_->[3] =~ /^p(\d+)@/ ? ($1 => $_->[0]) : () } @{ control(op => 'people', provider => $provider)->{people} };
	$id{$provider} = \%by_number;

	control(op => 'edit', provider => $provider, id => 1003, fields => { title => 'Fetched' });
	is(fetch($provider, $by_number{3}), '1', "$provider: one fetch is queued");
	is(title($provider, $by_number{3}), 't|Fetched', "$provider: it brings what the record holds now");
	is(last_attempt(), 'done|200', "$provider: and is in the log");
	my $seen = sql("SELECT seen_at FROM records WHERE source = '$provider' AND source_id = '$by_number{3}'");
	my $before = sql('SELECT count(*) FROM observations');
	fetch($provider, $by_number{3});
	is(sql('SELECT count(*) FROM observations'), $before, "$provider: what is read again changes nothing");
	is(sql("SELECT seen_at > '$seen' FROM records WHERE source = '$provider' AND source_id = '$by_number{3}'"), 't', "$provider: but is a sighting");

	control(op => 'delete', provider => $provider, id => 1004);
	fetch($provider, $by_number{4});
	is(title($provider, $by_number{4}) =~ /^f/ ? 'dead' : title($provider, $by_number{4}), 'dead', "$provider: a record that is gone is deleted");
	control(op => 'restore', provider => $provider, id => 1004);
	fetch($provider, $by_number{4});
	like(title($provider, $by_number{4}), qr/^t\|Title/, "$provider: and lives when it is there again");
	is(sql('SELECT count(*) FROM verify()'), '0', "$provider: all is as if computed from scratch");
}

# one that nobody knows is no event
my $observations = sql('SELECT count(*) FROM observations');
fetch('scim', 'u-4711');
is(last_attempt(), 'gone|404', 'a record that never was');
is(sql("SELECT count(*) FROM records WHERE source_id = 'u-4711'") . sql('SELECT count(*) FROM observations'), "0$observations", 'makes no record');

# Google: another name for the same person, and one that would lead elsewhere
control(op => 'rename', provider => 'google', id => 1007);
fetch('google', 'people/c1007');
is(sql("SELECT string_agg(source_id || alive, ' ' ORDER BY source_id) FROM records WHERE source_id LIKE 'people/c1007%'"),
	'people/c1007false people/c1007xtrue', 'google: a person by a former name');
sql(q{SELECT fetch_records('google', ARRAY['people/../../x', 'people/..'])});
until_sql($settled, 't', 'ids that would lead to other paths');
is(sql(q{SELECT string_agg(concat_ws('|', kind, source_id, attempts, last_error_code, last_error), E'\n' ORDER BY source_id COLLATE "C") FROM dead_letters}),
	"fetch|people/..|1|22023|the record's id cannot be a part of a URL\nfetch|people/../../x|1|22023|the record's id cannot be a part of a URL", 'are never asked for');
is(sql(q{SELECT discard('fetch', array_agg(id)) FROM dead_letters}), '2', 'and are discarded');

# ---- once for each record ----
control(op => 'log');
is(sql(q{SELECT fetch_records('scim', ARRAY['u-1009', 'u-1010', 'u-1009'])}), '2', 'a record twice in a call is one fetch');
until_sql($settled, 't', 'fetched');
is(scalar(grep { m{/Users/u-1009} } @{ control(op => 'log')->{requests} }), 1, 'and one request');
sql(q{SELECT pause_source('scim')});
is(sql(q{SELECT fetch_records('scim', ARRAY['u-1009', 'u-1010'])}), '2', 'of a paused source they are queued');
is(sql(q{SELECT fetch_records('scim', ARRAY['u-1009', 'u-1011'])}), '1', 'once');
is(sql(q{SELECT waiting FROM queue_depth WHERE queue = 'fetches'}), '3', 'and wait');
sql(q{SELECT resume_source('scim')});
until_sql($settled, 't', 'and are read when it goes on');

# asked for while it is read: the answer may be older than what it was asked for
control(op => 'mode', provider => 'scim', mode => 'hold', times => 1);
sql(q{SELECT fetch_records('scim', ARRAY['u-1012'])});
until_sql(q{SELECT lease IS NOT NULL FROM fetches WHERE source_id = 'u-1012'}, 't', 'a fetch under way');
for (1 .. 500) { last if control(op => 'held')->{held}; select undef, undef, undef, 0.02 }
control(op => 'log');
is(sql(q{SELECT fetch_records('scim', ARRAY['u-1012'])}), '1', 'asked for again');
is(sql(q{SELECT fetch_records('scim', ARRAY['u-1012'])}), '0', 'and again');
control(op => 'release');
until_sql($settled, 't', 'it ends');
is(scalar(grep { m{/Users/u-1012} } @{ control(op => 'log')->{requests} }), 1, 'and is read once more');

# ---- faults ----
my @faults = ([ 'status:500', 'retry|500|08006' ], [ 'html', 'retry|200|08P01' ], [ 'half', 'retry|200|22P02' ],
	[ 'truncated', 'retry|08006' ], [ 'utf8', 'retry|200|08P01' ], [ 'status:503:1', 'retry|503|08006' ],
	[ 'redirect:http://169.254.169.254/', 'retry|302|08P01' ]);
for my $fault (@faults)
{
	my ($mode, $expected) = @$fault;
	control(op => 'edit', provider => 'scim', id => 1013, fields => { title => "After $mode" });
	control(op => 'mode', provider => 'scim', mode => $mode, times => 1);
	fetch('scim', 'u-1013');
	is(sql("SELECT string_agg(concat_ws('|', outcome, status, error_code), ' ' ORDER BY attempt) FROM attempts WHERE job = (SELECT max(job) FROM attempts)"),
		"$expected done|200", "$mode: the fetch fails, and succeeds the next time");
	is(title('scim', 'u-1013'), "t|After $mode", "$mode: with what the record holds");
}
# what would be the same next time is given up at once
control(op => 'mode', provider => 'scim', mode => 'status:400', times => 1);
fetch('scim', 'u-1014');
like(last_attempt(), qr/^dead\|400\|08P01\|/, 'a bad request is given up');
is(sql(q{SELECT concat_ws('|', kind, source, source_id, cause, attempts, last_error_code, first_error = last_error) FROM dead_letters}), 'fetch|scim|u-1014|request|1|08P01|t', 'and is a dead letter');
is(sql(q{SELECT replay(source => 'scim', failed_before => now())}), '1', 'it is replayed');
until_sql($settled, 't', 'read');
is(sql('SELECT count(*) FROM dead_letters'), '0', 'and is none any more');
control(op => 'mode', provider => 'scim', mode => 'status:400', times => 1);
fetch('scim', 'u-1014');
is(sql('SELECT count(*) FROM dead_letters'), '1', 'a dead letter');
fetch('scim', 'u-1014');
is(sql('SELECT count(*) FROM dead_letters'), '0', 'ends with a later success');
sql("ALTER SYSTEM SET contactsync.max_attempts = 2");
$node->reload;
$node->poll_query_until('postgres', "SELECT current_setting('contactsync.max_attempts') = '2'");
control(op => 'mode', provider => 'scim', mode => 'html', times => 2);
fetch('scim', 'u-1015');
is(sql(q{SELECT concat_ws('|', attempts, last_error_code, last_error) FROM dead_letters}), "2|08P01|the provider's answer is not JSON", 'after so many attempts it is given up');
is(sql(q{SELECT discard('fetch', array_agg(id)) FROM dead_letters}), '1', 'discarded');

# ---- limits: a 429 costs no attempt, and its pause holds ----
control(op => 'mode', provider => 'scim', mode => 'status:429:1', times => 1);
my $began = sql('SELECT clock_timestamp()');
fetch('scim', 'u-1016');
is(sql("SELECT attempt, outcome FROM attempts WHERE at > '$began'"), '1|done', 'a fetch that met a limit was one attempt');
is(sql("SELECT clock_timestamp() - '$began' >= interval '1 s'"), 't', 'and waited as long as was asked for');

# ---- live work before replays ----
sql(q{SELECT pause_source('hubspot')});
sql(q{SELECT fetch_records('hubspot', ARRAY['1001', '1002'], 5), fetch_records('hubspot', ARRAY['1003'])});
control(op => 'log');
# one at a time
my $one = encode_json({ rate => { requests => 1, per => '50 ms' } });
sql(qq{SELECT alter_source('hubspot', '$one')});
sql(q{SELECT resume_source('hubspot')});
until_sql($settled, 't', 'of two priorities');
is(join(' ', map { m{contacts/(\d+)} ? $1 : () } @{ control(op => 'log')->{requests} }), '1003 1001 1002', 'the more urgent goes first');

# ---- credentials ----
control(op => 'mode', provider => 'hubspot', mode => 'status:401');
sql(q{SELECT fetch_records('hubspot', ARRAY['1005', '1006'])});
until_sql(q{SELECT state = 'stopped' FROM sources WHERE name = 'hubspot'}, 't', 'refused credentials stop the source');
is(sql(q{SELECT last_error FROM sources WHERE name = 'hubspot'}), 'the provider refused the credentials with status 401', 'and it says why');
until_sql(q{SELECT count(*) = 2 AND bool_and(lease IS NULL AND attempts = 0) FROM fetches}, 't', 'its fetches wait, and count no attempt');
control(op => 'mode', provider => 'hubspot', mode => undef);
sql(q{SELECT alter_source('hubspot', NULL, '{"token": "tok"}')});
until_sql($settled, 't', 'and go on with others');
is(sql(q{SELECT count(*) FROM dead_letters}), '0', 'none was lost');

# OAuth: the token is got when it is needed, and again when it is refused
my $oauth = encode_json({ url => "http://127.0.0.1:$port/scim", poll => JSON::PP::false, rate => JSON::PP::false, token_url => '/oauth/token',
	allow_http => JSON::PP::true, allow_private => JSON::PP::true });
$oauth =~ s{"/oauth/token"}{"http://127.0.0.1:$port/oauth/token"};
control(op => 'oauth', rotate => JSON::PP::true);
sql(qq{SELECT add_source('oauth', 'scim', '$oauth', '{"refresh_token": "r0", "client_id": "id", "client_secret": "s/cret"}')});
my @many = map { "u-$_" } 1001 .. 1020;
fetch('oauth', @many);
is(sql(q{SELECT count(*) FROM records WHERE source = 'oauth' AND alive}), '20', 'OAuth: all are read');
is(control(op => 'log')->{count}, 1, 'with one token');
control(op => 'revoke');
fetch('oauth', @many);
is(control(op => 'log')->{count}, 2, 'OAuth: a refused token is replaced once');
control(op => 'revoke');
my $both = sql(q{SELECT fetch_records('oauth', ARRAY['u-1001', 'u-1002']), sync('oauth', true) AS run});
my ($run) = $both =~ /\|(\d+)/;
is(sql("SELECT wait_for_run($run, '60 s')"), 'succeeded', 'OAuth: a run beside fetches');
until_sql($settled, 't', 'and they');
is(sql(q{SELECT state FROM sources WHERE name = 'oauth'}), 'active', 'share the rotated token');

# ---- the end of a source ----
control(op => 'mode', provider => 'scim', mode => 'hold');
sql(q{SELECT fetch_records('scim', ARRAY['u-1017', 'u-1018'])});
for (1 .. 500) { last if (control(op => 'held')->{held} // 0) >= 2; select undef, undef, undef, 0.02 }
my $count = sql(q{SELECT count(*) FROM observations});
sql(q{SELECT drop_source('scim')});
control(op => 'mode', provider => 'scim', mode => undef);
control(op => 'release');
sql(q{SELECT fetch_records('google', ARRAY['people/c1001'])});
until_sql($settled, 't', 'a source that is dropped while it is read');
is(sql(q{SELECT count(*) FROM observations}), $count, 'and nothing of it is stored');
is($node->safe_psql('postgres', q{SELECT count(*) FROM contactsync.fetches}), '0', 'no fetch is left');

$node->stop;
$emulator->kill_kill;
is(scalar(grep { /WARNING|TRAP|PANIC/ } split(/\n/, slurp_file($node->logfile))), 0, 'the server has nothing to warn of');
done_testing();
