# The circuit breaker of a source: when it opens, who waits then, and how it closes.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use JSON::PP;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($node, $dir) = peers_node('breaker', 'contactsync.breaker_failures = 3', 'contactsync.breaker_pause = 4');
my ($emulator, $port) = start_providers($dir);

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
sub run_source { return sql("SELECT sync('crm') AS run \\gset\nSELECT wait_for_run(:run, '60 s')") }
sub breaker { return sql("SELECT breaker FROM status WHERE source = 'crm'") }
sub until_sql { ok($node->poll_query_until('postgres', $_[0]), $_[1]) or diag(sql('SELECT * FROM sources') . sql('TABLE fetches')) }
sub requests { return scalar @{ control(op => 'log', provider => 'scim')->{requests} } }
sub mode { control(op => 'mode', provider => 'scim', mode => $_[0]) }

sql('CREATE EXTENSION contactsync; ALTER DATABASE postgres SET search_path = contactsync, public');
control(op => 'reset', provider => 'scim', count => 9);
my $settings = encode_json({ url => "http://127.0.0.1:$port/scim", poll => JSON::PP::false, rate => JSON::PP::false, allow_http => JSON::PP::true, allow_private => JSON::PP::true });
sql(qq{SELECT add_source('crm', 'scim', '$settings', '{"token": "tok"}')});
is(run_source(), 'succeeded', 'a source that answers');
is(breaker(), 'closed', 'has a closed breaker');
my $ids = sql(q{SELECT string_agg(quote_literal(source_id), ',') FROM records});

# ---- what says nothing about the server, does not open it ----
mode('status:429');
run_source() for 1 .. 4;
is(breaker(), 'closed', 'limits are no failures');
mode('status:404');
run_source() for 1 .. 4;
is(breaker(), 'closed', 'nor is what the server refuses');
mode('status:500');
run_source() for 1 .. 2;
mode(undef);
is(run_source(), 'succeeded', 'two failures, and a success');
mode('status:500');
run_source() for 1 .. 2;
is(breaker(), 'closed', 'two more: they are counted one after the other');

# ---- it opens ----
is(run_source(), 'failed', 'the third');
is(breaker(), 'open', 'opens it');
ok(sql(q{SELECT breaker_until - clock_timestamp() BETWEEN interval '1 s' AND interval '4 s' FROM sources}), 'for a part of the pause');
requests();
my $since = sql('SELECT breaker_until FROM sources');
is(sql("SELECT fetch_records('crm', ARRAY[$ids])"), '9', 'many requests are due');
until_sql("SELECT breaker_until > '$since' FROM sources", 'then it opens again');
is(requests(), 1, 'for one request has tried how things are');
ok(sql("SELECT breaker_until - clock_timestamp() > interval '3 s' FROM sources"), 'for twice as long');
is(sql(q{SELECT count(*) > 0 FROM fetches}), 't', 'the others wait');

# ---- a restart does not forget it ----
$since = sql('SELECT breaker_until FROM sources');
$node->restart;
until_sql("SELECT breaker_until > '$since' FROM sources", 'after a restart it is tried, too');
is(requests(), 1, 'by one request');
cmp_ok(sql("SELECT breaker_until - '$since' >= interval '2 s' FROM sources"), 'eq', 't', 'not before its time');

# ---- somebody asks, and it closes ----
mode(undef);
requests();
is(run_source(), 'succeeded', 'sync() asks at once');
is(breaker(), 'closed', 'what is answered closes it');
until_sql('SELECT NOT EXISTS (SELECT FROM fetches)', 'and what waited goes');
is(sql('SELECT failures FROM sources'), 0, 'nothing is left of it');

# ---- a poll waits ----
mode('status:503');
$node->safe_psql('postgres', 'ALTER SYSTEM SET contactsync.breaker_pause = 60');
$node->reload;
run_source() for 1 .. 3;
sql(qq{SELECT alter_source('crm', '{"poll": "1 s"}')});
until_sql(q{SELECT next_poll_at >= breaker_until AND breaker_until > clock_timestamp() + interval '20 s' FROM sources}, 'a poll that fails is not made again before that');

# ---- without one ----
mode('status:500');
$node->safe_psql('postgres', 'ALTER SYSTEM SET contactsync.breaker_failures = 0');
$node->reload;
sql(qq{SELECT alter_source('crm', '{"poll": false}')});
mode(undef);
is(run_source(), 'succeeded', 'it closes');
mode('status:500');
run_source() for 1 .. 6;
is(breaker(), 'closed', 'and stays so');
mode(undef);

$node->stop;
$emulator->kill_kill;
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|terminated by signal/, 'no assertion failed');
done_testing();
