# The HTTP engine over TLS: who is trusted, certificates of clients, HTTP/2.
use strict;
use warnings;
use File::Spec;
use FindBin;
use lib $FindBin::Bin;
use Http;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = File::Spec->rel2abs(PostgreSQL::Test::Utils::tempdir());
build_driver($dir);
make_certificates($dir);
my ($peer, $ports) = start_servers($dir, $dir);
sub url { return "https://127.0.0.1:$ports->{$_[0]}$_[1]" }
sub one { my @x = drive(join("\n", @_, 'wait', '')); return $x[-1] }
sub count { return decode_json(one("send a @{[url($_[0], '/count')]} private ca=$dir/ca.crt")->{body}) }
my $ca = "private ca=$dir/ca.crt";

# ---- who is trusted ----
my $a;
for ([ 'good', 'private', 'an authority that nobody knows' ], [ 'self', $ca, 'a certificate that signs itself' ], [ 'other', $ca, "another server's certificate" ], [ 'expired', $ca, 'a certificate that has expired' ])
{
	$a = one("send a @{[url($_->[0], '/size/1')]} $_->[1]");
	is("$a->{fault} $a->{class} $a->{sent}", 'refused permanent 0', "$_->[2]: $a->{error}");
}
$a = one("send a @{[url('good', '/size/1')]} $ca");
is("$a->{fault} $a->{status}", 'answered 200', 'an authority of the request');
$a = one("set http_ca_file $dir/ca.crt", "send a @{[url('good', '/size/1')]} private");
is($a->{fault}, 'answered', 'one of the settings');
$a = one("set http_ca_file $dir/ca.crt", "send a @{[url('self', '/size/1')]} private ca=$dir/self.crt");
is($a->{fault}, 'answered', 'that of the request goes before it');
$a = one("set http_ca_file $dir/ca.crt", "send a @{[url('good', '/size/1')]} private ca=$dir/self.crt");
is($a->{fault}, 'refused', 'and takes its place');
my @x = drive("set http_ca_file $dir/ca.crt\nsend a @{[url('good', '/size/1')]} private\nwait\nset http_ca_file $dir/self.crt\nsend b @{[url('good', '/size/1')]} private\nwait\nset http_ca_file $dir/ca.crt\nsend c @{[url('good', '/size/1')]} private\nwait\n");
is(join(' ', map { $_->{fault} } @x), 'answered refused answered', 'who is not trusted any more is not asked, over a connection that is kept either');
@x = drive("send a @{[url('good', '/size/1')]} $ca\nwait\nsend b @{[url('good', '/size/1')]} private\nwait\n");
is(join(' ', map { $_->{fault} } @x), 'answered refused', 'what one request trusts, the next does not');
$a = one("send a https://127.0.0.1:$ports->{plain}/size/1 $ca");
is("$a->{fault} $a->{sent}", 'failed 0', "a server without TLS: $a->{error}");
$a = one("set http_ca_file $dir/absent.crt", "send a @{[url('good', '/size/1')]} private");
is("$a->{fault} $a->{class}", 'refused permanent', "authorities that are not there: $a->{error}");

# ---- who we are ----
my $mine = "certificate=$dir/client.crt key=$dir/client.key";
$a = one("send a @{[url('mutual', '/size/1')]} $ca");
isnt($a->{fault}, 'answered', "a server that wants a certificate: $a->{error}");
$a = one("send a @{[url('mutual', '/echo')]} $ca $mine");
is($a->{fault}, 'answered', 'gets one');
like($a->{body}, qr/"client":"client"/, 'of this client');
$a = one("send a @{[url('mutual', '/echo')]} $ca certificate=$dir/self.crt key=$dir/self.key");
isnt($a->{fault}, 'answered', 'not one of another authority');
@x = drive("send a @{[url('mutual', '/size/1')]} $ca $mine\nwait\nsend b @{[url('mutual', '/size/1')]} $ca\nwait\nsend c @{[url('mutual', '/size/1')]} $ca certificate=$dir/client.crt key=$dir/good.key\nwait\nsend d @{[url('mutual', '/size/1')]} $ca $mine\nwait\n");
is(join(' ', map { $_->{fault} eq 'answered' || 0 } @x), '1 0 0 1', 'its connection is for nobody who has not got the same certificate and key');
is($x[2]{fault}, 'refused', "a key of another certificate: $x[2]{error}");
$a = one("send a @{[url('mutual', '/size/1')]} $ca certificate=$dir/client.ext key=$dir/client.key");
is("$a->{fault} $a->{class}", 'refused permanent', "what is no certificate: $a->{error}");

# ---- HTTP/2 ----
count('good');
@x = drive("set http_connections 50\nsend a @{[url('good', '/wait/100/205')]} $ca n=80\nwait\nsend a @{[url('good', '/wait/100/205')]} $ca n=320\nwait\nstat\n");
is(scalar(grep { $_->{status} eq '200' && $_->{version} eq '2' && $_->{len} eq '205' } @x[0 .. 399]), 400, 'four hundred requests by HTTP/2');
my $count = count('good');
is($count->{requests}, 400, 'each once');
cmp_ok($count->{connections}, '<=', 8, "over $count->{connections} connections, this one's too");
cmp_ok($x[-1]{most_active}, '>', 200, "$x[-1]{most_active} in flight");
count('old');
@x = drive("set http_connections 20\nsend a @{[url('old', '/wait/50/205')]} $ca n=100\nwait\nstat\n");
is(scalar(grep { $_->{status} eq '200' && $_->{version} eq '1' } @x[0 .. 99]), 100, 'HTTP/1.1 where a server speaks nothing else');
$count = count('old');
ok($count->{connections} <= 21 && $count->{most} >= 10, "over $count->{connections} connections");
@x = drive("set http_timeout 2\nsend slow @{[url('good', '/wait/4000/1')]} $ca\nsend quick @{[url('good', '/wait/1/1')]} $ca n=20\nwait\nsend after @{[url('good', '/size/1')]} $ca\nwait\n");
is(join(' ', map { "$_->{tag} $_->{fault}" } @x[20, 21]), 'slow failed after answered', 'one that takes too long does not end the others');
@x = drive("send gone @{[url('good', '/wait/3000/1')]} $ca n=3\nsend stay @{[url('good', '/wait/200/1')]} $ca n=3\nwait 100\ncancel gone\nwait\nstat\n");
is(join(' ', map { $_->{tag} } @x), 'stay stay stay stat', 'nor does one that is cancelled');
@x = drive("set http_memory 2000\nset http_max_body 800\nsend a @{[url('good', '/size/700000')]} $ca n=30\nwait\nstat\n");
cmp_ok($x[-1]{most_held}, '<', 2 * 2_048_000 + 800_000, "bodies on one connection take no more than twice the memory: $x[-1]{most_held} bytes");
is(scalar(grep { $_->{fault} eq 'answered' || $_->{error} =~ /http_memory/ } @x[0 .. 29]), 30, 'others fail for now');
is($x[-1]{held}, 0, 'and all is free');

$peer->kill_kill;
done_testing();
