# Counters in shared memory: exact under many sessions, kept through restarts, free of what is dropped;
# and the views on them where there is much, on a standby, and without them.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use JSON::PP;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my ($node, $dir) = peers_node('counters', 'contactsync.counter_save_interval = 1', 'contactsync.http_retries = 2', 'max_connections = 60');
my ($emulator, $port) = start_providers($dir);
my $file = $node->data_dir . '/pg_stat/contactsync.stat';
$node->safe_psql('postgres', 'CREATE EXTENSION contactsync');

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
# All of them, but the worker's own.
sub totals { return sql(q{SELECT source, name, labels, value, since FROM counters WHERE name NOT LIKE 'worker%' AND value > 0 ORDER BY 1, 2, 3}) }
sub counted
{
	my ($source, $name, $label) = @_;
	my $which = $source eq '' ? 'source IS NULL' : "source = '$source'";
	$which .= " AND labels @> '{$label}'" if $label;
	return sql("SELECT coalesce(sum(value), 0) FROM counters WHERE $which AND name = '$name'");
}
# Until the file on disk has what is in memory: it is written when something has changed, and then not again.
sub wait_saved
{
	my $before = (stat $file)[1];
	sql(q{SELECT status FROM receive('none', '{}', '')});
	for (1 .. 3000) { my @st = stat $file; last if @st && $st[1] != ($before // 0); usleep(10_000) }
	# that one may have been written while this was counted
	$before = (stat $file)[1];
	sql(q{SELECT status FROM receive('none', '{}', '')});
	for (1 .. 3000) { my @st = stat $file; last if @st && $st[1] != $before; usleep(10_000) }
	return;
}

# ---- what a provider brings about ----
control(op => 'reset', provider => 'google', count => 60);
control(op => 'set', provider => 'google', page => 20);
my $settings = encode_json({ url => "http://127.0.0.1:$port/google", parameters => { page_size => '20' }, poll => JSON::PP::false, rate => JSON::PP::false,
	allow_http => JSON::PP::true, allow_private => JSON::PP::true });
sql(qq{SELECT add_source('google', 'google', '$settings', '{"token": "tok"}')});
sub run { return sql("SELECT sync('google') AS run \\gset\nSELECT wait_for_run(:run, '60 s')") }
is(run(), 'succeeded', 'a read');
my $pages = sql('SELECT sum(pages) FROM runs');
is(counted('google', 'pages_total'), $pages, 'each page is counted');
is(counted('google', 'requests_total', '"class": "fine"'), $pages, 'and each request');
is(counted('google', 'responses_total', '"status": "2xx"'), $pages, 'by the status of its answer');
is(sql(q{SELECT max(count) FROM histograms WHERE source = 'google' AND name = 'request_duration_seconds'}), $pages, 'with its duration');
is(sql(q{SELECT max(count) FROM histograms WHERE source = 'google' AND name = 'page_store_seconds'}), $pages, 'and that of storing the page');
cmp_ok(counted('google', 'received_bytes_total'), '>', 60 * 50, 'bytes are counted');
is(counted('google', 'events_total', '"outcome": "applied"'), sql('SELECT count(*) FROM observations'), 'events');
is(counted('google', 'runs_total', '"outcome": "succeeded"'), '1', 'the run');
is(sql(q{SELECT records FROM status WHERE source = 'google'}), sql(q{SELECT count(*) FROM records WHERE alive}), 'status knows how many records there are');
control(op => 'mode', provider => 'google', mode => 'status:429:0', times => 1);
is(run(), 'succeeded', 'a read that is slowed down');
is(counted('google', 'requests_total', '"class": "rate"'), '1', 'a limit is counted');
is(counted('google', 'request_retries_total'), '1', 'and the request that was sent again');
like(sql(q{SELECT subject || ': ' || problem FROM health()}), qr/^google: its provider limits requests, last at /, 'health() says so');
control(op => 'mode', provider => 'google', mode => 'status:500');
is(run(), 'failed', 'a read that fails');
is(counted('google', 'requests_total', '"class": "transient"'), '3', 'with each attempt counted');
is(counted('google', 'responses_total', '"status": "5xx"'), '3', 'by its status');
is(counted('google', 'runs_total', '"outcome": "failed"'), '1', 'and the run');
is(sql(q{SELECT last_error_code, last_success_at IS NOT NULL, age > '0' FROM status WHERE source = 'google'}), '08006|t|t', 'status tells of it');
control(op => 'mode', provider => 'google', mode => undef);
control(op => 'edit', provider => 'google', id => 1001, fields => { title => 'Changed' });
is(run(), 'succeeded', 'what changed is read');
$node->poll_query_until('postgres', q{SELECT events > 0 FROM contactsync.sync_lag WHERE source = 'google'});
is(sql(q{SELECT p50 BETWEEN '0' AND '10 min' AND p95 >= p50 FROM sync_lag WHERE source = 'google'}), 't', 'and has a lag');
cmp_ok(counted('', 'worker_wakeups_total'), '>', 0, 'so has the worker been counted');

# ---- exact, however many count at a time ----
my $script = $node->basedir . '/count.sql';
append_to_file($script, q{
BEGIN;
SELECT contactsync._count('google', 'pages_total', 3);
SAVEPOINT a;
SELECT contactsync._count('google', 'pages_total', 5);
ROLLBACK TO a;
SELECT contactsync._count('many' || :client_id, 'pages_total', 7);
COMMIT;
BEGIN;
SELECT contactsync._count('google', 'pages_total', 1000000);
SELECT status FROM contactsync.receive('none', '{}', '');
ROLLBACK;
});
my $none = counted('', 'webhooks_refused_total');
$node->command_ok([ 'pgbench', '-n', '-c', '20', '-j', '2', '-t', '100', '-f', $script, '-h', $node->host, '-p', $node->port, 'postgres' ], 'twenty sessions');
is(counted('google', 'pages_total'), sql('SELECT sum(pages) FROM runs') + 20 * 100 * 3, 'effects: what was committed, and all of it');
is(counted('', 'webhooks_refused_total') - $none, 20 * 100, 'attempts: each');
is(sql(q{SELECT count(*), sum(value) FROM counters WHERE source LIKE 'many%' AND name = 'pages_total'}), '20|14000', 'sources that are new to all of them');

# ---- restart ----
my $before = totals();
$node->restart;
is(totals(), $before, 'a restart keeps all of it');
wait_saved();
$before = totals();
$node->stop('immediate');
$node->start;
is(totals(), $before, 'a crash what was saved');

# a backend is shot while it counts
wait_saved();
my $saved = counted('google', 'pages_total');
append_to_file("$script.loop", q{SELECT contactsync._count('google', 'pages_total', 1);});
my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', '4', '-T', '60', '-f', "$script.loop", '-h', $node->host, '-p', $node->port, 'postgres' ],
	'>', \my $out, '2>', \my $err);
$node->poll_query_until('postgres', "SELECT sum(value) > $saved + 200 FROM contactsync.counters WHERE source = 'google' AND name = 'pages_total'");
my $victim = $node->safe_psql('postgres', q{SELECT min(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()});
my $log = -s $node->logfile;
kill 'KILL', $victim;
$bench->finish;
$node->wait_for_log(qr/database system is ready to accept connections/, $log);
$node->poll_query_until('postgres', 'SELECT true');
cmp_ok(counted('google', 'pages_total'), '>=', $saved, 'after a backend was shot, what was saved is there');
my $now = counted('google', 'pages_total');
sql(q{SELECT _count('google', 'pages_total', 2)});
is(counted('google', 'pages_total'), $now + 2, 'nobody holds a lock, and counting goes on');

# ---- files that are not ours, or not whole ----
$node->stop;
my $good = slurp_file($file, 0);
sub with_file
{
	my ($content, $message, $what) = @_;
	open my $f, '>:raw', $file or die $!;
	print $f $content;
	close $f;
	my $from = -s $node->logfile;
	$node->start;
	like(slurp_file($node->logfile, $from), qr/LOG:  ignoring contactsync's counters in file "pg_stat\/contactsync.stat": \Q$message\E/, "$what: said, and ignored");
	is(counted('google', 'pages_total'), '0', "$what: counting begins anew");
	sql(q{SELECT _count('google', 'pages_total', 1)});
	is(counted('google', 'pages_total'), '1', "$what: and goes on");
	$node->stop;
}
sub flipped { my ($at) = @_; my $x = $good; substr($x, $at, 1) = chr(ord(substr($x, $at, 1)) ^ 1); return $x }
with_file(flipped(length($good) - 100), 'it is damaged', 'one bit');
with_file(substr($good, 0, length($good) - 1), 'it is damaged', 'a byte less');
with_file($good . "\0", 'it is damaged', 'a byte more');
with_file(substr($good, 0, 20), 'it is damaged', 'hardly any');
with_file('', 'it is damaged', 'nothing');
with_file('x' x 10000, 'it is no such file', 'something else');
with_file(flipped(4), 'it is of another version', 'another version');
with_file(flipped(8), 'it is of another version', 'other counters');
with_file(flipped(16), 'it was written by another server', 'another server');
open my $f, '>:raw', $file or die $!;
print $f $good;
close $f;
$node->start;
is(counted('google', 'pages_total'), $now + 2, 'the right one is taken');

# ---- what is dropped ----
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', q{CREATE EXTENSION contactsync; SELECT contactsync.add_source('s', 'canonical');
	SELECT contactsync.ingest('s', '1', '{"last_name": "X"}', now())});
sub others { return $node->safe_psql('other', q{SELECT coalesce(sum(value), 0) FROM contactsync.counters WHERE source = 's' AND name = 'events_total'}) }
$node->poll_query_until('other', q{SELECT sum(value) = 1 FROM contactsync.counters WHERE source = 's' AND name = 'events_total'});
is(others(), '1', 'another database counts for itself');
is(sql(q{SELECT count(*) FROM counters WHERE source = 's'}), '0', 'unseen here');
$node->safe_psql('other', 'DROP EXTENSION contactsync');
$node->safe_psql('other', q{CREATE EXTENSION contactsync; SELECT contactsync.add_source('s', 'canonical')});
is(others(), '0', 'an extension that is dropped takes its counters with it');
$node->safe_psql('other', q{SELECT contactsync._count('s', 'events_total:applied')});
$node->safe_psql('other', q{BEGIN; DROP EXTENSION contactsync; ROLLBACK});
is(others(), '1', 'one that is not, does not');
my $size = -s $file;
$node->safe_psql('postgres', 'DROP DATABASE other');
wait_saved();
cmp_ok(-s $file, '<', $size + 1, 'a database that is dropped leaves room');

# ---- more sources than entries ----
$node->append_conf('postgresql.conf', 'contactsync.max_counted_sources = 30');
sql(q{SELECT _count('many' || i, 'pages_total') FROM generate_series(0, 19) i});
$node->restart;
my $from = -s $node->logfile;
sql(q{SELECT _count('more' || i, 'pages_total') FROM generate_series(1, 40) i; SELECT count(*) FROM counters});
sql(q{SELECT _count('more' || i, 'pages_total') FROM generate_series(1, 40) i});
is(sql(q{SELECT sum(value) FROM counters WHERE (source LIKE 'more%' OR source = '(others)') AND name = 'pages_total'}), '80', 'what has no entry is counted together');
cmp_ok(counted('(others)', 'pages_total'), '>', 0, 'under its own name');
my @said = slurp_file($node->logfile, $from) =~ /contactsync counts no more than 30 sources one by one/g;
is(scalar @said, 1, 'which is said once');
like(sql('SELECT problem FROM health()'), qr/there are more sources than are counted one by one/, 'and by health()');
$node->safe_psql('postgres', q{CREATE ROLE plain LOGIN IN ROLE contactsync_app});
is($node->safe_psql('postgres', q{SELECT count(*) FROM contactsync.counters WHERE source = '(others)'}, extra_params => [ '-U', 'plain' ]), '0',
	'it is of all tenants, and so not for everybody');
$before = totals();
$node->restart;
is(totals(), $before, 'that is kept, too');

# ---- a server that is full, held up, or has no room ----
sql(q{UPDATE sources SET next_poll_at = now() + interval '1 day'});
$node->append_conf('postgresql.conf', 'contactsync.max_counted_sources = 1000');
# the server's own replication launcher comes first
for (1, 2)
{
	$node->append_conf('postgresql.conf', "max_worker_processes = $_");
	$node->restart;
	ok($node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM contactsync.health() WHERE subject = 'worker' AND hint LIKE '%max_worker_processes%')}),
		'health() says that there is no room for ' . ($_ == 1 ? 'a launcher' : 'a worker'));
}
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;
ok($node->poll_query_until('postgres', q{SELECT pid IS NOT NULL AND seen_at > now() - interval '1 min' AND NOT refused FROM contactsync._worker_status()}), 'the worker is seen');
$node->safe_psql('postgres', q{CREATE ROLE holder LOGIN});
my $holder = $node->background_psql('postgres', extra_params => [ '-U', 'holder' ]);
$holder->query('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $pid = $holder->query('SELECT pg_backend_pid()');
is($node->safe_psql('postgres', q{SELECT pid = (SELECT pid FROM pg_stat_activity WHERE usename = 'holder') AND since < now() FROM contactsync._oldest_snapshot()},
	extra_params => [ '-U', $node->safe_psql('postgres', 'SELECT current_user') ]), 't', 'the oldest snapshot is known, whoever holds it');
$holder->query('ROLLBACK');
$holder->quit if $holder->can('quit');

# ---- a standby ----
$node->safe_psql('postgres', q{ALTER SYSTEM SET wal_level = replica});
$node->append_conf('postgresql.conf', "wal_level = replica\nmax_wal_senders = 4\nhot_standby = on");
$node->restart;
wait_saved();
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
like(slurp_file($standby->logfile), qr/contactsync.stat": it was written by another server/, "a standby does not take over its primary's counters");
is($standby->safe_psql('postgres', q{SELECT coalesce(sum(value), 0) FROM contactsync.counters}), '0', 'it has its own');
is($standby->safe_psql('postgres', "SELECT count(*) FROM contactsync.$_"), $node->safe_psql('postgres', "SELECT count(*) FROM contactsync.$_"), "$_ works there")
	for qw(status sync_lag queue_depth run_history conflict_rate);
is($standby->safe_psql('postgres', 'SELECT sum(requests) FROM contactsync.webhook_failures'), '', 'so does webhook_failures, of which there were none');
unlike($standby->safe_psql('postgres', 'SELECT subject FROM contactsync.health()'), qr/worker/, 'and health() asks for no worker');
$standby->stop;

# ---- much of everything: no view reads all of it ----
sql(q{SELECT add_source('big', 'canonical');
	INSERT INTO records (source, source_id, alive) SELECT 'big', i::text, true FROM generate_series(1, 200000) i;
	INSERT INTO observations (record_id, kind, version, effective, seq, digest, received_at, tolerance)
		SELECT id, 'snapshot', now(), now(), 0, '', now(), '0' FROM records WHERE source = 'big';
	INSERT INTO contacts (id, contact, live, policy_version, last_modified, modified_by) SELECT gen_random_uuid(), '{}', true, 1, now(), 'x' FROM generate_series(1, 200000);
	UPDATE sources SET state = 'paused' WHERE name = 'google';
	ALTER SYSTEM SET contactsync.enabled = off; SELECT pg_reload_conf()});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'contactsync worker'}), 'the worker rests');
sql(q{INSERT INTO inbox (source, source_id, kind, version, payload, failed_at) SELECT 'big', i::text, 'snapshot', now(), '{"last_name": "X"}',
		CASE WHEN i % 2 = 0 THEN now() END FROM generate_series(1, 100000) i;
	INSERT INTO conflicts (contact_id, field, state, candidates, seen) SELECT gen_random_uuid(), 'note', 'open', '[{"source": "big"}, {"source": "google"}]', ''
		FROM generate_series(1, 50000);
	INSERT INTO runs (source, kind, state, stamp, started_at, finished_at) SELECT 'big', 'full', 'failed', now(), now(), now() FROM generate_series(1, 20000);
	ANALYZE});
my $all = sql(q{SELECT sum(pg_relation_size(c.oid)) / 8192 FROM pg_class c WHERE c.relname IN ('records', 'observations', 'contacts', 'inbox', 'conflicts', 'runs')});
for my $what ('contactsync.status', 'contactsync.sync_lag', 'contactsync.queue_depth', 'contactsync.conflict_rate', 'contactsync.counters', 'contactsync.health()')
{
	my $plan = decode_json($node->safe_psql('postgres', "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM $what", extra_params => [ '-U', 'plain' ]))->[0];
	my $blocks = $plan->{Plan}{'Shared Hit Blocks'} + $plan->{Plan}{'Shared Read Blocks'};
	diag("$what: $blocks blocks of $all, $plan->{'Execution Time'} ms") if $ENV{VERBOSE};
	cmp_ok($blocks, '<', 3000, "$what reads little ($blocks blocks, of $all that there are)");
}
is(sql(q{SELECT waiting, rejected, open_conflicts FROM status WHERE source = 'big'}), '10000|10000|10000', 'and says no more than it knows');

# ---- not preloaded ----
$node->stop;
my $conf = slurp_file($node->data_dir . '/postgresql.conf');
$conf =~ s/^(shared_preload_libraries|contactsync\.max_counted).*$//mg;
open $f, '>', $node->data_dir . '/postgresql.conf' or die $!;
print $f $conf;
close $f;
$node->start;
is(sql('SELECT (SELECT count(*) FROM counters), (SELECT count(*) FROM histograms), (SELECT rate FROM conflict_rate), (SELECT p50 FROM sync_lag LIMIT 1)'), '0|0||',
	'without the library preloaded views have nothing to say');
is(sql(q{SELECT count(*) FROM status}), '2', 'or what they can');
like(sql(q{SELECT problem || ' / ' || hint FROM health() WHERE subject = 'counters'}),
	qr/nothing is counted, because the library is not preloaded \/ Put contactsync into shared_preload_libraries/, 'and health() says why');
my ($rc, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT contactsync.reset_counters()");
like($stderr, qr/ERROR:  55000: nothing is counted/, 'there is nothing to be reset');
is(sql(q{SELECT process(1)}), '1', 'and work goes on');
$node->stop;
unlike(slurp_file($node->logfile), qr/TRAP|PANIC/, 'no assertion failed');
$emulator->kill_kill;
done_testing();
