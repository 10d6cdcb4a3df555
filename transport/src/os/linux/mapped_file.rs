use std::io;

/// Where in this process the beginning of the file would lie that is mapped at `address`, so that any address of the mapping
/// less this one is an offset in the file.
pub(crate) fn start_of_mapped_file(address: usize) -> io::Result<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    start_in_maps(&maps, address)
        .ok_or_else(|| io::Error::other(format!("/proc/self/maps does not say which file is mapped at {address:#x}")))
}

/// From the text of `/proc/self/maps`: `start-end perms offset device inode path`, addresses in hex (proc_pid_maps(5)).
fn start_in_maps(maps: &str, address: usize) -> Option<usize> {
    let number = |text| usize::from_str_radix(text, 16).ok();
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (start, offset) = (number(start)?, number(fields.nth(1)?)?);
        let is_file = fields.nth(1)? != "0";
        let here = is_file && (start..number(end)?).contains(&address);
        here.then(|| start.checked_sub(offset)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_with_the_address_counts() {
        let maps = "7f0000000000-7f0000001000 r--p 00000000 00:19 5    /lib/a.so\n\
                    7f0000003000-7f0000009000 rw-s 00002000 00:19 7    /dev/shm/tb-0-x/tb 1.pool\n\
                    7ffd00000000-7ffd00001000 rw-p 00000000 00:00 0\n";
        assert_eq!(start_in_maps(maps, 0x7f00_0000_3000), Some(0x7f00_0000_1000));
        assert_eq!(start_in_maps(maps, 0x7f00_0000_8fff), Some(0x7f00_0000_1000));
        assert_eq!(start_in_maps(maps, 0x7f00_0000_9000), None);
        assert_eq!(start_in_maps(maps, 0x7ffd_0000_0000), None, "no file");
        assert_eq!(start_in_maps("", 0), None);
    }
}
