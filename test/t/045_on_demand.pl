# Where the library is not preloaded, sync() starts a worker, which goes when it is done.
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
use Time::HiRes qw(usleep);

my $node = PostgreSQL::Test::Cluster->new('on_demand');
my $dir = File::Spec->rel2abs($node->basedir);
$node->init;
mkdir "$dir/secrets";
spew("$dir/secrets/token", "tok\n");
spew("$dir/state.json", encode_json({ token => 'tok', contacts => [
	map { { id => "$_", updated_at => '2026-01-01T00:00:00.000000Z', contact => { last_name => "Last$_", emails => ["p$_\@x.org"] } } } 1 .. 250 ] }));
my $crm = IPC::Run::start([ 'python3', "$FindBin::Bin/../sandbox/crm.py", "$dir/state.json", "$dir/port", $$ ]);
for (1 .. 500) { last if -e "$dir/port"; usleep(20_000) }
my $port = slurp_file("$dir/port");
$node->append_conf('postgresql.conf', "contactsync.secret_directory = '$dir/secrets'");
$node->start;

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
sql('CREATE EXTENSION contactsync');
sql(qq{SELECT add_source('crm', 'rest', '{"url": "http://127.0.0.1:$port/api", "poll": false, "allow_http": true, "allow_private": true}',
	'{"token": {"file": "$dir/secrets/token"}}')});
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'contactsync%'}), '0', 'nobody runs');
my $run = sql("SELECT sync('crm')");
is(sql("SELECT wait_for_run($run, '60 s')"), 'succeeded', 'sync() starts a worker');
is(sql('SELECT count(*) FROM directory'), '250', 'which does all of it');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'contactsync%'}), 'and goes');

# a run that nobody else can see yet is not waited for
for my $asked (q{SELECT sync('crm') AS run \gset}, q{SAVEPOINT a; SELECT sync('crm') AS run \gset
RELEASE a;}, q{CREATE TEMP TABLE t (i integer); SAVEPOINT a; SELECT sync('crm') AS run \gset
SAVEPOINT b; INSERT INTO t VALUES (1);})
{
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSET search_path = contactsync, public; BEGIN; $asked\nSELECT wait_for_run(:run, '60 s')");
	like($err, qr/ERROR:  55000: run \d+ is not committed yet/, 'a run of this transaction is not waited for');
}
is(sql(q{SELECT sync('crm') AS run \gset
BEGIN; CREATE TEMP TABLE t (i integer); SELECT wait_for_run(:run, '60 s')}), 'succeeded', 'but one that is committed, from a transaction that wrote');

# several at a time wait for each other, and nothing is lost
my @runs = map { sql("SELECT sync('crm', " . ($_ % 2 ? 'true' : 'false') . ')') } 1 .. 6;
is(sql("SELECT string_agg(DISTINCT wait_for_run(r, '60 s'), ' ') FROM unnest(ARRAY[" . join(',', @runs) . ']) r'), 'succeeded', 'asked for often, all is done');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'contactsync%'}), 'and nobody stays');
sql(q{SELECT add_source('s', 'canonical'); SELECT ingest('s', '1', '{"last_name": "Pushed"}', now())});
is(sql(q{SELECT count(*) FROM inbox}), '1', 'what is ingested waits for process()');
is(sql('SELECT process()'), '1', 'which does it here');
$node->stop;
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|WARNING/, 'no assertion failed, nothing to warn of');
$crm->kill_kill;
done_testing();
