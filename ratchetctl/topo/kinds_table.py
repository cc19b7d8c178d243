"""The device kinds that Ratchet brings along, in the form in which users add their own.

docs/topologies.md explains the keys.
"""

TABLE = r"""
linux: {image: alpine:3, shell: true}

frr: {image: quay.io/frrouting/frr:10.2.1, config: /etc/frr/frr.conf, router: frr}
bird: {image: pierky/bird:latest, config: /etc/bird/bird.conf, router: bird}
gobgp: {image: hfam/gobgp:latest, config: /gobgp.conf, router: gobgp}
quagga: {image: networkop/qrtr, config: /etc/quagga/zebra.conf}

ceos:
  command: [/sbin/init]
  env:
    CEOS: "1"
    EOS_PLATFORM: ceoslab
    ETBA: "1"
    INTFTYPE: eth
    SKIP_ZEROTOUCH_BARRIER_IN_SYSDBINIT: "1"
    container: docker
  config: /mnt/flash/startup-config
  wait: true
  interfaces:
    - {name: 'et(?:hernet)?(\d+)(?:/(\d+))?(?:/(\d+))?', becomes: 'eth{$1}[_{$2}][_{$3}]'}
arista_ceos: {like: ceos}

nokia_srlinux:
  image: ghcr.io/nokia/srlinux
  config: /etc/opt/srlinux/config.json
  wait: true
  interfaces:
    - {name: 'ethernet-(\d+)/(\d+)(?:/(\d+))?', becomes: 'e{$1}-{$2}[-{$3}]'}
srl: {like: nokia_srlinux}

juniper_crpd: {config: /config/juniper.conf}
crpd: {like: juniper_crpd}
cisco_xrd: {config: /etc/xrd/first-boot.cfg, wait: true}

# Machines in a container, as vrnetlab builds them: their port 0 is eth1.
juniper_vmx:
  wait: true
  interfaces: [{name: '(?:et|xe|ge)-0/0/(\d+)', becomes: 'eth{$1+1}'}]
juniper_vsrx: {like: juniper_vmx}
juniper_vjunosrouter: {like: juniper_vmx}
juniper_vjunosswitch: {like: juniper_vmx}
vr-vmx: {like: juniper_vmx}
vr-juniper_vmx: {like: juniper_vmx}
arista_veos:
  wait: true
  interfaces: [{name: 'et(?:hernet)?1/(\d+)', becomes: 'eth{$1}'}]
vr-veos: {like: arista_veos}
cisco_iol:
  wait: true
  interfaces: [{name: 'e(?:thernet)?(\d+)/(\d+)', becomes: 'eth{4*$1+$2}'}]
cisco_csr1000v:
  wait: true
  interfaces: [{name: 'gi(?:gabitethernet)?(\d+)', becomes: 'eth{$1-1}'}]
vr-csr: {like: cisco_csr1000v}
cisco_xrv9k:
  wait: true
  interfaces: [{name: '(?:gi|gigabitethernet)0[/-]0[/-]0[/-](\d+)', becomes: 'eth{$1+1}'}]
vr-xrv9k: {like: cisco_xrv9k}
"""
