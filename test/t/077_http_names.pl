# The HTTP engine and names: what is dialled is what counts, and a name server that
# does not answer holds up nobody else.  Runs in a network of its own, where this
# machine is the internet, too.
use strict;
use warnings;
use File::Spec;
use FindBin;
use lib $FindBin::Bin;

BEGIN
{
	if (!$ENV{HTTP_NAMES_APART})
	{
		if (system('unshare -rmn ip link set lo up >/dev/null 2>&1') != 0)
		{
			print "1..0 # SKIP namespaces are not allowed here, or there is no ip\n";
			exit 0;
		}
		$ENV{HTTP_NAMES_APART} = 1;
		exec 'unshare', '-rmn', $^X, (map { "-I$_" } @INC), File::Spec->rel2abs($0) or die $!;
	}
}

use Http;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $dir = File::Spec->rel2abs(PostgreSQL::Test::Utils::tempdir());
my ($internet, $resolv) = ('93.184.216.34', "$dir/resolv.conf");
append_to_file($resolv, "nameserver 127.0.0.1\noptions timeout:20 attempts:1\n");
for ([ qw(ip link set lo up) ], [ 'ip', 'address', 'add', "$internet/32", 'dev', 'lo' ], [ 'mount', '--bind', $resolv, '/etc/resolv.conf' ])
{
	system(@$_) == 0 or die "@$_: $?";
}
my $names = IPC::Run::start([ '/usr/bin/python3', '-B', "$FindBin::Bin/../http/names.py", "$dir/ready" ]);
for (1 .. 500) { last if -e "$dir/ready"; usleep(20_000) }
build_driver($dir);
my ($peer, $ports) = do { local $ENV{LISTEN} = '0.0.0.0'; start_servers($dir) };
my $p = $ports->{plain};
sub one { my @x = drive(join("\n", @_, 'wait', '')); return $x[-1] }
sub requests { return decode_json(one("send a http://$internet:$p/count http")->{body})->{requests} }

requests();
my $a = one("send a http://public.test:$p/size/1 http");
is($a->{fault}, 'answered', "a public name, without allow_private: $a->{error}");
is(one("send a http://$internet:$p/size/1 http")->{fault}, 'answered', 'a public address');
is(requests(), 2, 'reach the server');
for my $name ('private.test', 'mapped.test', 'localhost', 'x.localhost')
{
	$a = one("send a http://$name:$p/size/1 http");
	ok($a->{fault} ne 'answered' && $a->{sent} == 0, "$name is not one: $a->{error}");
}
# what it was when it was looked at does not count
$a = one("send a http://rebind.test:$p/size/1 http");
is($a->{fault}, 'answered', 'a name that is public at first');
for (1 .. 3)
{
	$a = one("send a http://rebind.test:$p/size/1 http");
	is("$a->{fault} $a->{sent}", 'refused 0', "and private after that: $a->{error}");
}
is(requests(), 1, 'nothing was sent there');
$a = one("send a http://mixed.test:$p/size/1 http");
is(requests(), 1, 'of a name with both addresses the public one is asked') if $a->{fault} eq 'answered';
is("$a->{fault} $a->{sent}", 'refused 0', 'or none') if $a->{fault} ne 'answered';
is(one("send a http://absent.test:$p/ http")->{class}, 'transient', 'a name that does not exist');

my @x = drive("set http_timeout 3\nsend silent http://silent.test:$p/size/1 http n=3\nwait 200\nsend a http://public.test:$p/size/5 http n=100\nawait 100\nstat\nwait\nstat\n");
is(scalar(grep { $_->{tag} eq 'a' && $_->{fault} eq 'answered' } @x[0 .. 99]), 100, 'others are answered while a name server says nothing');
cmp_ok($x[100]{slowest_poll_ms}, '<', 500, "nothing blocks: $x[100]{slowest_poll_ms} ms at most");
my @silent = grep { $_->{tag} eq 'silent' } @x;
is(join(' ', map { "$_->{fault} $_->{class} $_->{sent}" } @silent), join(' ', ('failed transient 0') x 3), "whose name it was fails in time: $silent[0]{error}");
cmp_ok($silent[0]{ms}, '<', 6000, "after $silent[0]{ms} ms");
@x = drive("send gone http://silent.test:$p/size/1 http n=2\nwait 300\ncancel gone\nsend a http://public.test:$p/size/5 http\nwait\nstat\n");
is("$x[0]{tag} $x[0]{fault}", 'a answered', 'one that is cancelled meanwhile');
cmp_ok($x[1]{slowest_poll_ms}, '<', 500, 'is not waited for');

$_->kill_kill for $peer, $names;
done_testing();
