# Schedules that pg_cron keeps: the real package, beside the worker, in the database that it is
# installed in and in another one; it goes away, and comes later.
use strict;
use warnings;
use File::Spec;
use FindBin;
use lib $FindBin::Bin;
use JSON::PP;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('pg_cron');
my $dir = File::Spec->rel2abs($node->basedir . '/secrets');
mkdir $dir or die $!;
spew("$dir/key", ('ab' x 32) . "\n");
$node->init;
# a job runs in a background worker of its own, which needs no way to log in
$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'contactsync, pg_cron'
cron.database_name = 'postgres'
cron.use_background_workers = on
cron.log_run = on
max_worker_processes = 20
contactsync.secret_key_file = '$dir/key'
});
$node->start;
my ($emulator, $port) = start_providers($dir);
control(op => 'reset', provider => 'scim', count => 3);

sub sql { my ($text, $db) = @_; return $node->safe_psql($db // 'postgres', "SET search_path = contactsync, public; $text") }
sub as { my ($role, $text) = @_; my ($status, $out, $err) = $node->psql('postgres', "SET search_path = contactsync, public; $text", extra_params => [ '-U', $role ]); return "$out$err" }

sql('CREATE EXTENSION contactsync; CREATE ROLE boss LOGIN IN ROLE contactsync_admin; CREATE ROLE other LOGIN IN ROLE contactsync_admin');
my $settings = qq{'{"url": "http://127.0.0.1:$port/scim", "poll": false, "allow_http": true, "allow_private": true}'};
sql(qq{SELECT add_source('idp', 'scim', $settings, '{"token": "tok"}')});

# ---- without pg_cron, and where one may not use it, the worker keeps the time ----
as('boss', q{SELECT schedule('idp', '0 2 * * *')});
is(sql('SELECT kept_by FROM schedules'), 'worker', 'without pg_cron the worker keeps the time');
sql('CREATE EXTENSION pg_cron');
like(as('boss', q{SELECT schedule('idp', '0 2 * * *')}), qr/NOTICE.*the worker keeps this schedule, not pg_cron: you may not use it/, 'so where the caller may not use it');
is(sql('SELECT kept_by FROM schedules'), 'worker', 'or so it says');
sql('GRANT USAGE ON SCHEMA cron TO boss');
like(as('boss', q{SET ROLE contactsync_admin; SELECT schedule('idp', '0 2 * * *')}), qr/may not use it/, 'or acts as one who may not');

# ---- pg_cron does, as the caller ----
as('boss', q{SELECT schedule('idp', '0 2 * * *')});
is(sql('SELECT kept_by, next_at = _cron_next(cron, now()) + interval \'5 min\' FROM schedules'), 'pg_cron|t', 'the same call once it is there lets pg_cron keep the time');
is(sql('SELECT jobname, schedule, command, username, database FROM cron.job'),
	"contactsync default/idp reconcile|0 2 * * *|SET contactsync.tenant = 'default'; SELECT contactsync.run_schedule('idp', 'reconcile')|boss|postgres", 'by a job that only queues');
as('boss', q{SELECT schedule('idp', '* * * * *', 'sync'); SELECT schedule('idp', '0 2 * * *')});
is(sql('SELECT count(*) FROM cron.job'), 2, 'the same call again makes no other one');
ok($node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM contactsync.runs WHERE source = 'idp' AND cause = 'schedule' AND state = 'succeeded' AND requested_by = 'boss')}),
	'and within a minute the source is read') or diag(sql('TABLE cron.job_run_details'));
is(sql(q{SELECT k.last_run = r.id, k.next_at > now() FROM schedules k, runs r WHERE k.job = 'sync' AND r.cause = 'schedule' ORDER BY r.id DESC LIMIT 1}), 't|t', 'as the schedule knows');
is(sql(q{SELECT count(*) FROM records WHERE source = 'idp'}), 3, 'with everybody');
is(sql(q{SELECT DISTINCT status FROM cron.job_run_details WHERE status NOT IN ('starting', 'running')}), 'succeeded', 'no job has failed');

# ---- a job that is left over does nothing; what it queues for a source that is paused neither ----
like(as('other', q{SELECT unschedule('idp', 'reconcile')}), qr/^1.*NOTICE.*the job "contactsync default\/idp reconcile" of pg_cron is left, and does nothing/s, 'somebody else ends the schedule');
is(as('boss', q{SELECT run_schedule('idp', 'reconcile') IS NULL}), 't', 'of which the job is left, and does nothing');
sql(q{SELECT pause_source('idp')});
is(as('boss', q{SELECT run_schedule('idp', 'sync') IS NULL}), 't', 'a source that is paused is passed over');
sql(q{SELECT resume_source('idp')});
is(as('boss', q{SELECT unschedule('idp')}) . sql(q{SELECT count(*) FROM cron.job WHERE jobname LIKE '%sync'}), '10', 'the end of a schedule is that of its job');

# ---- another tenant, a long name ----
sql(q{CREATE ROLE acme; GRANT acme TO boss; SELECT add_tenant('acme', 'acme'); SELECT set_config('contactsync.tenant', 'acme', false); SELECT add_source(repeat('n', 80), 'scim', } . $settings . q{, '{"token": "tok"}')});
like(as('boss', q{SET contactsync.tenant = 'acme'; SELECT schedule(repeat('n', 80), '* * * * *', 'full')}), qr/^20/, "another tenant's");
is(sql(q{SELECT jobname ~ '^contactsync [0-9a-f]{32}$', command ~ '^SET contactsync.tenant = .acme.; ' FROM cron.job WHERE command ~ 'acme'}), 't|t', 'has a job of its own');
ok($node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM contactsync.runs WHERE tenant_id = 'acme' AND kind = 'full' AND cause = 'schedule' AND state = 'succeeded')}), 'which runs for that tenant')
	or diag(sql('TABLE cron.job_run_details'));
is(as('boss', q{SET contactsync.tenant = 'acme'; SELECT unschedule(repeat('n', 80))}), '1', 'and ends');

# ---- an expression that pg_cron does not take; a database that it is not in ----
like(as('boss', q{SELECT schedule('idp', '@annually', 'full')}), qr/^2/, 'an expression');
is(sql(q{SELECT kept_by IN ('pg_cron', 'worker') FROM schedules WHERE job = 'full'}), 't', 'is kept by one of them');
$node->safe_psql('postgres', 'CREATE DATABASE elsewhere');
sql('CREATE EXTENSION contactsync', 'elsewhere');
sql(qq{SELECT add_source('idp', 'scim', $settings, '{"token": "tok"}'); SELECT schedule('idp', '0 2 * * *')}, 'elsewhere');
is(sql('SELECT kept_by FROM schedules', 'elsewhere'), 'worker', 'where pg_cron is not installed the worker keeps the time');

# ---- pg_cron is dropped: the worker takes over what it no longer does ----
as('boss', q{SELECT schedule('idp', '0 0 1 1 *', 'sync')});
is(sql(q{SELECT kept_by FROM schedules WHERE job = 'sync'}), 'pg_cron', 'a schedule of pg_cron');
my $runs = sql(q{SELECT max(id) FROM runs WHERE tenant_id = 'default'});
sql('DROP EXTENSION pg_cron');
sql(q{UPDATE schedules SET next_at = clock_timestamp() WHERE job = 'sync'});
ok($node->poll_query_until('postgres', qq{SELECT EXISTS (SELECT FROM contactsync.runs WHERE tenant_id = 'default' AND id > $runs AND cause = 'schedule' AND state = 'succeeded')}),
	'that is gone is made up for by the worker, 5 minutes later');
is(as('boss', q{SELECT unschedule('idp', 'sync')}), '1', 'and can be ended');
is(as('boss', q{SELECT schedule('idp', '0 2 * * *', 'sync') IS NOT NULL}) . sql(q{SELECT kept_by FROM schedules WHERE job = 'sync'}), 'tworker', 'and made anew');

$node->stop('fast');
unlike(slurp_file($node->logfile), qr/TRAP|PANIC/, 'no assertion failed');
$emulator->kill_kill;
done_testing();
