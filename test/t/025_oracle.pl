# What the extension computes is what an independent model of the design, test/oracle/oracle.py,
# computes from the same facts: random histories through the real ingest and process.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Oracle;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} || 20261125;
my $rounds = $ENV{ROUNDS} || 2000;
note("SEED=$seed ROUNDS=$rounds repeats this run");

my $node = PostgreSQL::Test::Cluster->new('oracle');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'\ncontactsync.enabled = off\nfsync = off\njit = off");
$node->start;

# It prints every difference, shrunk to the steps that matter.
my ($done, @reports) = ask_oracle($node, 'compare.py', $seed, $rounds);
ok($done, "$rounds random histories: the extension and the oracle agree") or diag(@reports);
like($_, qr/^[1-9]\d* histories, [1-9]\d* contacts, [1-9]\d* conflicts, [1-9]\d* decisions$/m,
	'and they had something to agree on') for @reports;
note(@reports) if $done;

$node->stop;
done_testing();
