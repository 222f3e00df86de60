# What a certified run did not show is asked for by itself: a 404 proves that it is gone,
# an answer that it lives, and anything else nothing. And fetches outlive the worker, the
# server and a dump.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use JSON::PP;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($node, $dir) = peers_node('absence');
$node->append_conf('postgresql.conf', 'restart_after_crash = on');
$node->restart;
my ($emulator, $port) = start_providers($dir);

sub sql { return $node->safe_psql('postgres', $_[0]) }
sub until_sql
{
	my ($query, $expected, $name) = @_;
	my $ok = $node->poll_query_until('postgres', $query, $expected // 't');
	ok($ok, $name);
	diag(sql($query) . "\n" . sql("TABLE fetches") . "\n" . sql('TABLE dead_letters')) unless $ok;
}
my $settled = q{SELECT NOT EXISTS (SELECT FROM fetches) AND NOT EXISTS (SELECT FROM inbox WHERE failed_at IS NULL)};
sub run_source
{
	my ($source) = @_;
	return sql("SELECT sync('$source', true) AS run \\gset\nSELECT wait_for_run(:run, '60 s') || ' ' || :run");
}
sub gets { return join(' ', sort map { m{GET \S*/v1/people/c(\d+)} ? $1 : () } @{ control(op => 'log')->{requests} }) }
sub dead { return sql(q{SELECT string_agg(source_id, ' ' ORDER BY source_id) FROM records WHERE source = 'google' AND NOT alive}) }
sub held { for (1 .. 500) { return 1 if control(op => 'held')->{held} >= $_[0]; select undef, undef, undef, 0.02 } return 0 }

sql('CREATE EXTENSION contactsync; ALTER DATABASE postgres SET search_path = contactsync, public');
control(op => 'reset', provider => 'google', count => 40);
control(op => 'set', provider => 'google', page => 5);
my $settings = encode_json({ url => "http://127.0.0.1:$port/google", poll => JSON::PP::false, rate => JSON::PP::false,
	parameters => { page_size => '5' }, allow_http => JSON::PP::true, allow_private => JSON::PP::true });
sql(qq{SELECT add_source('google', 'google', '$settings', '{"token": "tok"}')});
like(run_source('google'), qr/^succeeded/, 'the first read');

# ---- gone ----
control(op => 'delete', provider => 'google', id => $_) for 1003, 1004;
control(op => 'log');
my ($run) = run_source('google') =~ /(\d+)$/;
until_sql($settled, 't', 'a full read that does not show two');
like(gets(), qr/^(?!1003)\d+ (\d+ )*1003 .*1004|^1003 .*1004 \d+$/, 'they are asked for, and first of all somebody who is there');
is(sql(q{SELECT fetched_at IS NOT NULL FROM sources}), 't', 'so that a 404 is known to mean something');
is(dead(), 'people/c1003 people/c1004', 'and are gone by their 404, after one read');
is(sql("SELECT count(*) FROM observations WHERE inferred AND run = $run AND version > (SELECT stamp FROM runs WHERE id = $run)"), '2', 'inferred, as of when they were asked for');
is(sql("SELECT missed FROM runs WHERE id = $run"), '0', 'no other full read is needed');
is(sql(q{SELECT count(*) FROM verify()}), '0', 'all is as if computed from scratch');

# ---- a list that lies ----
control(op => 'mode', provider => 'google', mode => 'missing', skip => 1, times => 1);
control(op => 'log');
my $seen = sql('SELECT clock_timestamp()');
run_source('google');
until_sql($settled, 't', 'a page that is missing once');
is(scalar(split / /, gets()), 5, 'its five are asked for');
is(dead(), 'people/c1003 people/c1004', 'and live');
is(sql("SELECT count(*) FROM records WHERE seen_at > '$seen'"), '38', 'seen, all of them');

# ---- nothing known ----
control(op => 'delete', provider => 'google', id => 1010);
sql('ALTER SYSTEM SET contactsync.max_attempts = 1');
$node->reload;
$node->poll_query_until('postgres', "SELECT current_setting('contactsync.max_attempts') = '1'");
# its eight pages are good, what is asked for after them is not
control(op => 'mode', provider => 'google', mode => 'html', skip => 8);
($run) = run_source('google') =~ /(\d+)$/;
until_sql($settled, 't', 'where the record cannot be asked for');
is(dead(), 'people/c1003 people/c1004', 'one absence proves nothing');
is(sql(q{SELECT concat_ws('|', cause, source_id, last_error_code) FROM dead_letters}), 'absence|people/c1010|08P01', 'and it can be seen');
is(sql("SELECT missed FROM runs WHERE id = $run"), '1', 'the next poll reads everything again');
control(op => 'mode', provider => 'google', mode => undef);
sql(q{SELECT alter_source('google', '{"poll": "1 h"}'); UPDATE sources SET next_poll_at = clock_timestamp() WHERE name = 'google'});
until_sql(qq{SELECT state = 'succeeded' AND certificate_applied AND kind = 'full' AND cause = 'schedule' AND NOT EXISTS (SELECT FROM inbox) FROM runs WHERE id > $run}, 't', 'a poll makes a second full read');
sql(q{SELECT alter_source('google', '{"poll": false}')});
is(dead(), 'people/c1003 people/c1004 people/c1010', 'a second one does');
is(sql(q{SELECT discard('fetch', array_agg(id)) FROM dead_letters}), '1', 'what was given up is of no interest any more');
sql('ALTER SYSTEM RESET contactsync.max_attempts');
$node->reload;

# ---- too many ----
control(op => 'delete', provider => 'google', id => $_) for 1011 .. 1025;
control(op => 'log');
run_source('google');
is(gets() . '|' . dead(), '|people/c1003 people/c1004 people/c1010', 'more than may be deleted unasked are not asked for');
run_source('google');
is(sql('SELECT sum(held_deletes) FROM runs'), '15', 'but held for a person');
sql('SELECT reject_run(id) FROM runs WHERE held_deletes > 0');
control(op => 'restore', provider => 'google', id => $_) for 1011 .. 1025;
like(run_source('google'), qr/^succeeded/, 'they are there again');

# ---- the worker is killed: nothing is lost, and nothing is twice ----
my $alive = sql(q{SELECT string_agg(quote_literal(source_id), ',' ORDER BY source_id) FROM records WHERE source = 'google' AND alive});
control(op => 'edit', provider => 'google', id => $_, fields => { title => 'Survivor' }) for 1026 .. 1040;
my $observations = sql('SELECT count(*) FROM observations');
# ten answers come, the others are on their way
control(op => 'mode', provider => 'google', mode => 'hold', skip => 10);
sql("SELECT fetch_records('google', ARRAY[$alive])");
ok(held(20), 'requests are on their way');
my $pid = sql(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'contactsync worker'});
kill 'KILL', $pid;
control(op => 'mode', provider => 'google', mode => undef);
control(op => 'release');
until_sql($settled, 't', 'after kill -9 all are read');
is(sql(q{SELECT count(*) FROM records WHERE source = 'google' AND alive AND state ->> 'title' = 'Survivor'}), '15', 'nothing is lost');
is(sql('SELECT count(*) FROM observations') - $observations, 15, 'and nothing is twice');
is(sql(q{SELECT count(*) FROM verify()}), '0', 'all is as if computed from scratch');
is(sql(q{SELECT count(*) FROM dead_letters}), '0', 'and nothing given up');

# ---- the server is killed while outcomes and claims are committed ----
my $n = 0;
for my $round (1 .. 3)
{
	control(op => 'edit', provider => 'google', id => $_, fields => { title => "Round $round" }) for 1026 .. 1040;
	sql("SELECT fetch_records('google', ARRAY[$alive])");
	$node->stop('immediate');
	$node->start;
	until_sql($settled, 't', "crash $round: all are read");
	$n += sql(qq{SELECT count(*) FROM records WHERE source = 'google' AND alive AND state ->> 'title' = 'Round $round'});
}
is($n, 45, 'whenever the server crashed');

# ---- a server without such requests: a 404 for everybody proves nothing ----
my $blind = encode_json({ driver => 'rest', list => { path => '/linked', items => '$.people', page => { style => 'link' } },
	get => { path => '/nothing/{id}' }, item => { id => '$.id' }, map => { first_name => '$.first', last_name => '$.last' } });
sql(qq{SELECT add_connector('blind', '$blind')});
control(op => 'reset', provider => 'scim', count => 12);
my $unread = encode_json({ url => "http://127.0.0.1:$port/scim", poll => JSON::PP::false, allow_http => JSON::PP::true, allow_private => JSON::PP::true });
sql(qq{SELECT add_source('blind', 'blind', '$unread', '{"token": "tok"}')});
like(run_source('blind'), qr/^succeeded/, 'a provider that reads no single records');
control(op => 'delete', provider => 'scim', id => 1002);
run_source('blind');
until_sql($settled, 't', 'does not show one');
is(sql(q{SELECT string_agg(DISTINCT outcome, ' ' ORDER BY outcome) FROM attempts WHERE target = 'blind'}), 'retry unproven', 'and denies everybody');
is(sql(q{SELECT alive FROM records WHERE source = 'blind' AND source_id = 'u-1002'}), 't', 'that proves nothing');
is(sql(q{SELECT count(*) FROM dead_letters}), '0', 'and is no failure');
run_source('blind');
until_sql($settled, 't', 'a second read');
is(sql(q{SELECT alive FROM records WHERE source = 'blind' AND source_id = 'u-1002'}), 'f', 'does');

# ---- a dump has what waits; a copy does not act on it unasked ----
sql(q{SELECT pause_source('google'), fetch_records('google', ARRAY['people/c1001', 'people/c1002'])});
$node->command_ok([ 'pg_dump', '-f', "$dir/dump.sql", 'postgres' ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/dump.sql", 'copy' ], 'restore');
is($node->safe_psql('copy', 'SELECT count(*) FROM contactsync.fetches'), '2', 'what waits is in the dump');
is(($node->psql('copy', q{SELECT contactsync.fetch_records('google', ARRAY['people/c1005'])}))[2] =~ /dormant/ ? 1 : 0, 1, 'a copy is dormant');
control(op => 'log');
$node->safe_psql('copy', q{SELECT contactsync.activate(), contactsync.resume_source('google')});
ok($node->poll_query_until('copy', 'SELECT NOT EXISTS (SELECT FROM contactsync.fetches)'), 'activated, it reads them');
is(gets(), '1001 1002', 'each once');
sql(q{SELECT drop_source('google')});
is(sql('SELECT count(*) FROM fetches'), '0', 'a dropped source has no fetches');

$node->stop;
$emulator->kill_kill;
done_testing();
