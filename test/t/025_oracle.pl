# What the extension computes is what an independent model of the design, test/oracle/oracle.py,
# computes from the same facts: random histories through the real ingest and process.
use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} || time;
my $rounds = $ENV{ROUNDS} || 500;
note("SEED=$seed ROUNDS=$rounds repeats this run");

my $node = PostgreSQL::Test::Cluster->new('oracle');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'\ncontactsync.enabled = off\nfsync = off\njit = off");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION contactsync');

# It prints every difference, shrunk to the steps that matter.
my $compare = "$FindBin::Bin/../oracle/compare.py";
my $report = '';
my $done = IPC::Run::run([ 'python3', '-B', $compare, $seed, $rounds, '-d', $node->connstr('postgres') ], '>&', \$report);
ok($done, "$rounds random histories: the extension and the oracle agree") or diag($report);
like($report, qr/^$rounds histories, [1-9]\d* contacts, [1-9]\d* conflicts, [1-9]\d* decisions$/m,
	'and they had something to agree on');
note($report) if $done;

$node->stop;
done_testing();
