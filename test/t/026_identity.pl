# Who is who does not depend on how the facts arrive, and is what an independent model,
# test/oracle/oracle.py, computes: random graphs of records, keys, merges and decisions.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Oracle;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} || 20261125;
my $rounds = $ENV{ROUNDS} || 1500;
note("SEED=$seed ROUNDS=$rounds repeats this run");

my $node = PostgreSQL::Test::Cluster->new('identity');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'\ncontactsync.enabled = off\nfsync = off\njit = off");
$node->start;

my ($done, @reports) = ask_oracle($node, 'identity.py', $seed, $rounds);
ok($done, "$rounds random graphs: the same in every order, and as the oracle has it") or diag(@reports);
like($_, qr/^[1-9]\d* graphs in 6 orders, [1-9]\d* contacts, [1-9]\d* refused links, [1-9]\d* decisions$/m,
	'and they had something to agree on') for @reports;
note(@reports) if $done;

$node->stop;
done_testing();
