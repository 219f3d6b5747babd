package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// rotatedFile is a file that is put aside when it is full, with a bounded number
// of predecessors: name.1 is the latest.
type rotatedFile struct {
	name  string
	max   int64 // bytes
	keep  int
	file  *os.File // nil: could not be opened
	size  int64
	tried time.Time // when it was last tried to open it in vain
}

// open opens the file for appending. Who may read it is its owner: it holds who
// does what.
func (f *rotatedFile) open() error {
	if err := os.MkdirAll(filepath.Dir(f.name), 0o700); err != nil {
		return fmt.Errorf("the directory of %s: %w", f.name, err)
	}
	file, err := os.OpenFile(f.name, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	size, err := endLine(file)
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", f.name, err), file.Close())
	}
	f.file, f.size = file, size
	return nil
}

// endLine ends a line that a crash has cut off, so that the next one can be read,
// and returns the size of the file.
func endLine(file *os.File) (size int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New("not a regular file")
	}
	size = info.Size()
	last := []byte{'\n'}
	if size > 0 {
		if _, err := file.ReadAt(last, size-1); err != nil {
			return 0, err
		}
	}
	if last[0] != '\n' {
		if _, err := file.WriteString("\n"); err != nil {
			return 0, err
		}
		size++
	}
	return size, nil
}

func (f *rotatedFile) close() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}

// reopen opens what has the file's name now.
func (f *rotatedFile) reopen() error {
	err := f.close()
	f.tried = time.Time{}
	return errors.Join(err, f.open())
}

// write appends whole lines, all of them or none.
func (f *rotatedFile) write(lines []byte) error {
	if f.file == nil {
		if time.Since(f.tried) < retryEvery {
			return fs.ErrClosed
		}
		if err := f.open(); err != nil {
			f.tried = time.Now()
			return err
		}
	}
	if f.size > 0 && f.size+int64(len(lines)) > f.max {
		if err := f.rotate(); err != nil {
			return err
		}
	}
	n, err := f.file.Write(lines)
	if err == nil {
		f.size += int64(n)
		return nil
	}
	if n > 0 { // half a line would spoil the next one
		err = errors.Join(err, f.file.Truncate(f.size))
	}
	return err
}

// rotate moves name to name.1, that to name.2 and so on; the last goes.
func (f *rotatedFile) rotate() error {
	err := f.close()
	numbered := func(i int) string { return fmt.Sprintf("%s.%d", f.name, i) }
	if f.keep == 0 {
		return errors.Join(err, os.Remove(f.name), f.open())
	}
	for i := f.keep; i > 0; i-- {
		from := f.name
		if i > 1 {
			from = numbered(i - 1)
		}
		if renamed := os.Rename(from, numbered(i)); !errors.Is(renamed, fs.ErrNotExist) {
			err = errors.Join(err, renamed)
		}
	}
	return errors.Join(err, f.open())
}
